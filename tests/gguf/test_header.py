"""What the header of a GGUF file says of its model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest

from trio_gateway.gguf.header import GgufHeader, read_header, read_headers
from trio_gateway.gguf.metadata import BadGguf
from trio_gateway.gguf.tensors import TensorTotals


def write_gguf(path: Path, endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> None:
    writer = gguf.GGUFWriter(path, "qwen3", endianess=endian)
    writer.add_block_count(3)
    writer.add_embedding_length(512)
    writer.add_head_count_kv([0, 2, 0])
    writer.add_causal_attention(True)
    writer.add_rope_freq_base(float("inf"))
    writer.add_token_list([f"token {i} " + "ü" * (i % 7) for i in range(6000)])
    writer.add_token_types([1] * 6000)
    writer.add_token_merges([f"a {i}" for i in range(6000)])
    writer.add_vocab_size(6000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def test_a_header_is_read_without_its_long_lists(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path)
    assert read_headers([str(path)]) == {
        str(path): GgufHeader(
            architecture="qwen3",
            vocabulary=6000,
            values={
                "block_count": 3, "embedding_length": 512, "attention.head_count_kv": [0, 2, 0],
                "attention.causal": True, "vocab_size": 6000,
            },
            general={"architecture": "qwen3"},
            tensors=TensorTotals(0, 0),
            data_end=path.stat().st_size,
        )
    }  # fmt: skip


def test_a_big_endian_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, gguf.GGUFEndian.BIG)
    with pytest.raises(BadGguf, match="is big-endian, which is not supported"):
        read_header(path)


def test_a_broken_file_takes_nothing_from_the_others(tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    write_gguf(good)
    content = good.read_bytes()
    bad = []
    for cut in (0, 3, 20, 100, len(content) // 2):
        bad.append(tmp_path / f"{cut}.gguf")
        bad[-1].write_bytes(content[:cut])
    bad.append(tmp_path / "huge.gguf")
    bad[-1].write_bytes(content[:24].replace(content[16:24], b"\xff" * 8) + content[24:])
    paths = [str(p) for p in (*bad, tmp_path / "none.gguf", good)]
    assert list(read_headers(paths)) == [str(good)]


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with pytest.raises(BadGguf, match="names no architecture"):
        read_header(path)


def test_what_is_not_a_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none.gguf", "cannot be read: No such file"),
        (Path("a\0b"), "cannot be read: not a path"),
    ):
        with pytest.raises(BadGguf, match=why):
            read_header(path)


@pytest.mark.slow
@pytest.mark.untraced
def test_the_packaged_model_s_header_is_as_the_library_reads_it(
    smollm2: Path, by_library: dict[str, Any]
) -> None:
    header = read_header(smollm2)
    prefix = f"{header.architecture}."
    assert header.values == {
        name.removeprefix(prefix): value
        for name, value in by_library.items()
        if name.startswith(prefix) and isinstance(value, int)
    }
    assert header.general == {
        name.removeprefix("general."): value
        for name, value in by_library.items()
        if name.startswith("general.") and isinstance(value, int | str) and len(str(value)) <= 200
    }
    assert header.vocabulary == len(by_library["tokenizer.ggml.tokens"])
    assert header.chat_template == by_library["tokenizer.chat_template"]
