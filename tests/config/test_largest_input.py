"""How long an input of an embedding engine may be: by its batch, or as long as its context."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from tests.support.configurations import smallest
from tests.support.schema_values import model, variant
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.largest_input import largest_input, with_largest_inputs
from trio_gateway.gguf.header import GgufHeader, Number

NONE, MEAN, LAST, RANK = 0, 1, 3, 4


def header(pooling: int | None = None, causal: bool | None = None) -> GgufHeader:
    values: dict[str, Number | list[Number]] = {}
    if pooling is not None:
        values["pooling_type"] = pooling
    if causal is not None:
        values["attention.causal"] = causal
    return GgufHeader(architecture="bert", vocabulary=0, values=values)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--embeddings"], 512),
        (["--embeddings", "-ub", "4096"], 2048),
        (["--embeddings", "-ub", "4096", "-b", "4096"], 4096),
        (["--embedding", "-b", "256"], 256),
        (["--embeddings", "--ubatch_size=1024"], 1024),
        (["--embeddings", "-ub", "0"], 2048),
        ([], None),
    ],
)
def test_it_is_the_physical_batch(args: list[str], expected: int | None) -> None:
    assert largest_input(EngineArgs(args), header(MEAN, causal=False)) == expected


@pytest.mark.parametrize(
    ("args", "of", "expected"),
    [
        (["--embeddings"], header(LAST), None),
        (["--embeddings"], header(LAST, causal=True), None),
        (["--embeddings"], header(LAST, causal=False), 512),
        (["--embeddings"], header(), 512),  # pooling "none"
        (["--embeddings", "--pooling", "last"], header(MEAN), None),
        (["--embeddings", "--pooling", "last", "--attention", "non-causal"], header(), 512),
        (["--embeddings", "--pooling", "mean"], header(LAST), 512),
        (["--embeddings", "--pooling", "cls"], None, 512),
        (["--embeddings"], None, None),  # the file is not here
        (["--embeddings", "--pooling", "last"], None, None),
        (["--reranking"], header(RANK, causal=False), 512),
        (["--reranking"], header(), None),
        (["--embeddings", "--pooling", "rank"], header(causal=False), 512),
    ],
)
def test_what_can_be_computed_piece_by_piece_is_as_long_as_the_context(
    args: list[str], of: GgufHeader | None, expected: int | None
) -> None:
    """As llama.cpp's server decides it, and as was measured with it."""
    assert largest_input(EngineArgs(args), of) == expected


@pytest.mark.parametrize(
    ("args", "env", "expected"),
    [
        (("--pooling", "none"), {}, True),
        (("--embeddings",), {"LLAMA_ARG_POOLING": "none"}, True),
        (("--embeddings", "--pooling", "mean"), {"LLAMA_ARG_POOLING": "none"}, False),
        (("--embeddings",), {}, False),  # the file is not here
        ((), {}, False),
    ],
)
def test_options_say_whether_each_token_gets_a_vector(
    args: tuple[str, ...], env: dict[str, str], expected: bool
) -> None:
    (found,) = with_largest_inputs([model("m", variant(args=args, env=env))])
    assert found.variants[0].gives_token_vectors is expected


@pytest.mark.parametrize(
    ("pooling", "args", "expected"),
    [
        (None, ("--embeddings",), True),  # as of most models for chats
        (gguf.PoolingType.NONE, ("--embeddings",), True),
        (gguf.PoolingType.MEAN, ("--embeddings",), False),
        (gguf.PoolingType.MEAN, ("--embeddings", "--pooling", "none"), True),
        (None, ("--embeddings", "--pooling", "last"), False),
        (None, ("--reranking",), False),
        (None, (), False),
    ],
)
def test_without_an_option_the_file_says_it(
    tmp_path: Path, pooling: gguf.PoolingType | None, args: tuple[str, ...], expected: bool
) -> None:
    write_llama(tmp_path / "m.gguf", pooling)
    one = variant(args=("-m", "m.gguf", *args), workdir=tmp_path)
    (found,) = with_largest_inputs([model("m", one)])
    assert found.variants[0].gives_token_vectors is expected


def test_a_note_says_what_a_file_without_a_pooling_lacks(tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf", None)
    args = '"-m", "m.gguf", "-c", "512", "--embeddings"'
    config = smallest(tmp_path, f"model.variants[1].context = 512; {ARGS} = {{ {args} }}")
    (note,) = config.notes
    assert "say which one is meant with --pooling" in note
    config = smallest(
        tmp_path, f'model.variants[1].context = 512; {ARGS} = {{ {args}, "--pooling", "last" }}'
    )
    assert config.notes == ()


def write_llama(path: Path, pooling: gguf.PoolingType | None) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    write_header(writer)


def write_bert(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_causal_attention(False)
    write_header(writer)


def write_header(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


ARGS = 'model.variants[1].workdir = "."; model.variants[1].args'


@pytest.mark.parametrize(
    ("args", "holds", "cure"),
    [
        ('"--embeddings"', 512, "raise --ubatch-size and --batch-size to 4096"),
        ('"--embeddings", "-b", "8192"', 512, "raise --ubatch-size to 4096"),
        ('"--embeddings", "-ub", "4096"', 2048, "raise --batch-size to 4096"),
    ],
)
def test_a_variant_holds_no_more_and_a_note_says_what_to_raise(
    tmp_path: Path, args: str, holds: int, cure: str
) -> None:
    write_bert(tmp_path / "m.gguf")
    config = smallest(tmp_path, f'{ARGS} = {{ "-m", "m.gguf", "-c", "4096", {args} }}')
    (variant,) = config.models[0].variants
    assert (variant.context, variant.holds) == (4096, holds)
    (note,) = config.notes
    assert f"no more than {holds} tokens" in note
    assert f"{cure}; using {holds}" in note


def test_with_a_batch_as_large_as_its_context_there_is_nothing_to_say(tmp_path: Path) -> None:
    write_bert(tmp_path / "m.gguf")
    batch = '"-ub", "4096", "-b", "4096"'
    config = smallest(
        tmp_path, f'{ARGS} = {{ "-m", "m.gguf", "-c", "4096", "--embeddings", {batch} }}'
    )
    assert config.models[0].variants[0].holds == 4096
    assert config.notes == ()
