"""The estimate of an engine's memory, from its arguments and its GGUF file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gguf
import msgspec
import numpy
import pytest

from trio_gateway.config import memory_estimate
from trio_gateway.config.lua.presets import PresetError, preset
from trio_gateway.config.memory_estimate import estimate_variants
from trio_gateway.config.schema import EngineTimeouts, VariantConfig
from trio_gateway.gguf import memory
from trio_gateway.gguf.header import GgufHeader, Number
from trio_gateway.gguf.memory import MemoryEstimate

WEIGHTS = 1000
# 10 layers of 2 KV heads of 64: 512 bytes of a token in a layer, as f16.
VALUES: dict[str, Number | list[Number]] = {
    "block_count": 10, "embedding_length": 512, "context_length": 65536,
    "attention.head_count": 8, "attention.head_count_kv": 2,
}  # fmt: skip
TOKEN_IN_A_LAYER = 512


def variant(folder: Path, *args: str, context: int = 4096) -> VariantConfig:
    return VariantConfig(
        name="v", binary="x", args=args, context=context, connect=None, env={}, workdir=folder,
        parallel=None, memory_bytes=None, timeouts=EngineTimeouts(),
    )  # fmt: skip


class Model:
    """A file of 1,000 bytes, whose header is what a test says; no file is read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.values = folder, dict(VALUES)
        self.architecture, self.vocabulary = "llama", 0
        self.reads: list[Sequence[str]] = []
        (folder / "m.gguf").write_bytes(bytes(WEIGHTS))

    def read(self, paths: Sequence[str]) -> dict[str, GgufHeader]:
        self.reads.append(paths)
        header = GgufHeader(
            architecture=self.architecture, vocabulary=self.vocabulary, values=self.values
        )
        return dict.fromkeys(paths, header)

    def estimate(self, *args: str, context: int = 4096) -> MemoryEstimate | None:
        (found,) = estimate_variants([variant(self.folder, "-m", "m.gguf", *args, context=context)])
        return found

    def kv_tokens(self, *args: str, context: int = 4096) -> float:
        """The KV cache in tokens of one layer."""
        estimate = self.estimate(*args, context=context)
        assert estimate is not None
        return estimate.kv_bytes / TOKEN_IN_A_LAYER


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model(tmp_path)
    monkeypatch.setattr(memory_estimate, "read_headers", model.read)
    return model


# -- the arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "tokens"),
    [
        (["-c", "8192"], 8192),
        (["--ctx-size=8192"], 8192),
        (["-c", "1024", "-c", "8192"], 8192),  # the last one counts
        (["-c", "8000"], 8192),  # llama.cpp rounds up to 256
        (["-c", "8192", "-np", "4"], 8192),  # divided among the slots
        ([], 4096),  # what the variant promises
        (["-c", "0"], 4096),
        (["--parallel", "2"], 8192),  # promised to each slot
    ],
)
def test_the_context_is_the_one_of_the_arguments(
    model: Model, args: list[str], tokens: int
) -> None:
    assert model.kv_tokens(*args) == 10 * tokens


@pytest.mark.parametrize(
    ("args", "share"),
    [
        (["-ctk", "q8_0"], (34 / 64 + 1) / 2),
        (["-ctk", "q8_0", "--cache-type-v=q4_0"], (34 / 64 + 18 / 64) / 2),
        (["--cache-type-k", "f32", "--cache-type-v", "bf16"], 1.5),
    ],
)
def test_the_cache_types_count(model: Model, args: list[str], share: float) -> None:
    assert model.kv_tokens(*args) == pytest.approx(10 * 4096 * share)


def test_the_sizes_of_the_cache_types_are_those_of_the_package_gguf() -> None:
    for name, (size, elements) in memory.CACHE_TYPES.items():
        kind = gguf.GGMLQuantizationType[name.upper()]
        assert gguf.GGML_QUANT_SIZES[kind] == (elements, size)


def test_a_projector_is_part_of_the_weights(model: Model) -> None:
    (model.folder / "p.gguf").write_bytes(bytes(500))
    estimate = model.estimate("--mmproj", "p.gguf")
    assert estimate is not None
    assert estimate.weights_bytes == WEIGHTS + 500


def test_a_model_in_several_files_is_their_sum(model: Model) -> None:
    for number in (1, 2, 3):
        (model.folder / f"big-0000{number}-of-00003.gguf").write_bytes(bytes(number))
    first = variant(model.folder, "--model=big-00001-of-00003.gguf")
    (estimate,) = estimate_variants([first])
    assert estimate is not None
    assert estimate.weights_bytes == 6
    (model.folder / "big-00003-of-00003.gguf").unlink()
    assert estimate_variants([first]) == [None]


def test_the_scores_of_the_vocabulary_for_one_batch_are_the_buffers(model: Model) -> None:
    model.vocabulary = 100_000
    usual, smaller = model.estimate(), model.estimate("-ub", "256")
    assert usual is not None
    assert smaller is not None
    assert usual.buffer_bytes == 512 * (100_000 + 512) * 4
    assert smaller.buffer_bytes == usual.buffer_bytes / 2


@pytest.mark.parametrize(
    "args",
    [
        ["-ngl", "9"], ["--n-gpu-layers=1"], ["--n-cpu-moe", "12"], ["-ot=exps=CPU"],
        ["-md", "draft.gguf"], ["-ncffn", "3"], ["-ot", "(=CPU"], ["-ctk", "q3_x"], ["-c", "many"],
        ["--mmproj", "none.gguf"],
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_not_guessed(model: Model, args: list[str]) -> None:
    assert model.estimate(*args) is None


@pytest.mark.parametrize("layers", ["0", "10", "999", "all", "auto"])
def test_a_model_that_lies_in_one_memory_is_estimated_as_a_whole(model: Model, layers: str) -> None:
    assert model.estimate("-ngl", layers) == model.estimate()


def test_without_a_model_file_there_is_no_estimate(model: Model) -> None:
    found = estimate_variants(
        [variant(model.folder, *args) for args in ([], ["-hf", "org/m"], ["-m", "none"], ["-m"])]
    )
    assert found == [None] * 4
    assert model.reads == [[]]


def test_each_file_is_read_once(model: Model) -> None:
    args = ("-m", "m.gguf")
    estimate_variants([variant(model.folder, *args), variant(model.folder, *args, "-c", "512")])
    assert model.reads == [[str(model.folder / "m.gguf")]]


# -- the architecture -----------------------------------------------------------------------


def test_lengths_of_keys_and_values_may_differ(model: Model) -> None:
    model.values |= {"attention.key_length": 192, "attention.value_length": 128}
    assert model.kv_tokens() == 10 * 4096 * (192 + 128) / 128


def test_without_kv_heads_each_head_has_its_own(model: Model) -> None:
    del model.values["attention.head_count_kv"]
    assert model.kv_tokens() == 4 * 10 * 4096


def test_a_recurrent_layer_has_no_kv_cache(model: Model) -> None:
    model.values["attention.head_count_kv"] = [0, 0, 0, 0, 2] * 2
    assert model.kv_tokens() == 2 * 4096


def test_an_embedding_model_has_no_kv_cache(model: Model) -> None:
    model.values["attention.causal"] = False
    assert model.kv_tokens() == 0


def test_a_layer_with_a_window_keeps_the_window_and_a_batch_for_each_slot(model: Model) -> None:
    model.values |= {"attention.sliding_window": 1000, "attention.sliding_window_pattern": 5}
    assert model.kv_tokens("-np", "1") == 2 * 4096 + 8 * 1512
    assert model.kv_tokens("-np", "2", "-c", "4096") == 2 * 4096 + 8 * 3024
    assert model.kv_tokens("-np", "1", "--swa-full") == 10 * 4096
    model.values["attention.sliding_window_pattern"] = [*[True] * 9, False]
    assert model.kv_tokens("-np", "1") == 4096 + 9 * 1512


def test_a_window_in_layers_that_nobody_names_is_taken_for_the_whole_context(model: Model) -> None:
    model.values["attention.sliding_window"] = 1000
    assert model.kv_tokens("-np", "1") == 10 * 4096
    model.architecture = "gpt-oss"
    assert model.kv_tokens("-np", "1") == 5 * 4096 + 5 * 1512


# -- real files -----------------------------------------------------------------------------


@pytest.mark.processes
def test_loading_a_configuration_imports_neither_gguf_nor_numpy() -> None:
    program = (
        "import sys, trio_gateway.config.loader; "
        "sys.exit(any(name in sys.modules for name in ('gguf', 'numpy', 'pynvml')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("context", "measured_mib"),
    [(2048, 213), (8192, 349)],  # resident, after a prompt of 1,800 tokens, on 2 CPU cores
)
def test_the_estimate_for_the_packaged_model_is_near_what_was_measured(
    tmp_path: Path, context: int, measured_mib: int
) -> None:
    try:
        path = preset("models", "smollm2")
    except PresetError as error:
        pytest.skip(str(error))
    args = ("--model", path, "--ctx-size", str(context), "--parallel", "1")
    (estimate,) = estimate_variants([variant(tmp_path, *args)])
    assert estimate is not None
    assert estimate.weights_bytes == Path(path).stat().st_size
    assert estimate.kv_bytes == context * 30 * 3 * (64 + 64) * 2  # 23 kB a token
    assert 1 <= estimate.total_bytes / (measured_mib * 2**20) < 1.15
    assert estimate.total_bytes == sum(msgspec.structs.astuple(estimate))


# -- a part of it, and a second model -------------------------------------------------------


def write_layers(folder: Path, layers: int, *, experts: bool = False) -> Path:
    """Each layer has 4,096 bytes of attention and 8,192 of the rest; the output 1,024, and what
    turns tokens into vectors 2,048."""
    file = folder / "parts.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(layers)
    writer.add_embedding_length(512)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    exps = "_exps" if experts else ""
    shapes = {"token_embd.weight": 512, "output.weight": 256}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.attn_q.weight": 1024, f"blk.{layer}.ffn_up{exps}.weight": 2048}
    for name, count in shapes.items():
        writer.add_tensor(name, numpy.zeros(count, numpy.float32))
    for write in (
        writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file,
    ):  # fmt: skip
        write()
    writer.close()
    return file


KV_OF_A_LAYER = 4096 * TOKEN_IN_A_LAYER


@pytest.mark.parametrize(
    ("args", "weights", "kv_layers"),
    [
        (["-ngl", "1"], 1024, 0),
        (["-ngl", "4"], 1024 + 3 * 12288, 3),
        (["-ngl", "99", "--n-cpu-moe", "2"], 1024 + 10 * 12288 - 2 * 8192, 10),
        (["--cpu-moe"], 1024 + 10 * 4096, 10),
        (["-ot", r"ffn_.*_exps=CPU"], 1024 + 10 * 4096, 10),
        (["-ot", r"blk\.[0-3]\.ffn=CPU,output=CPU"], 10 * 12288 - 4 * 8192, 10),
        (["-ngl", "4", "-ot", r"blk\.0\.=CUDA0"], 1024 + 4 * 12288, 3),
        (["-ot", "blk.9.ffn=CPU", "-ot", "blk.8.ffn=CPU"], 1024 + 10 * 12288 - 2 * 8192, 10),
    ],
)
def test_of_a_model_that_is_divided_it_is_the_part_on_the_gpu(
    tmp_path: Path, args: list[str], weights: int, kv_layers: int
) -> None:
    file = write_layers(tmp_path, 10, experts=True)
    (found,) = estimate_variants([variant(tmp_path, "-m", file.name, *args)])
    assert found is not None
    assert (found.weights_bytes, found.kv_bytes) == (weights, kv_layers * KV_OF_A_LAYER)


def test_the_kv_cache_may_be_elsewhere(model: Model) -> None:
    found = model.estimate("-nkvo")
    assert found is not None
    assert (found.weights_bytes, found.kv_bytes) == (WEIGHTS, 0)


def test_a_model_that_drafts_comes_on_top(model: Model) -> None:
    (model.folder / "draft.gguf").write_bytes(bytes(100))
    alone, both = model.estimate(), model.estimate("-md", "draft.gguf")
    assert alone is not None
    assert both is not None
    assert (both.weights_bytes, both.kv_bytes) == (WEIGHTS + 100, 2 * alone.kv_bytes)
