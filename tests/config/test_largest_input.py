"""How long an input of an embedding engine may be: by its batch, or as long as its context."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from tests.support.configurations import smallest
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.largest_input import largest_input
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


def write_bert(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_causal_attention(False)
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
