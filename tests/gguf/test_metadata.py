"""The reader of GGUF headers: it reads what files have, and believes nothing that they claim."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gguf_files import write_bpe
from trio_gateway.gguf import metadata
from trio_gateway.gguf.metadata import BadGguf, Value, read_metadata

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, TEXT, LIST, UINT64, INT64, FLOAT64 = (
    range(13)
)
FORMS = {
    UINT8: "B", INT8: "b", UINT16: "H", INT16: "h", UINT32: "I", INT32: "i", FLOAT32: "f",
    BOOL: "?", UINT64: "Q", INT64: "q", FLOAT64: "d",
}  # fmt: skip


def length(count: int) -> bytes:
    return struct.pack("<Q", count)


def text(content: str | bytes) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return length(len(content)) + content


def value(kind: int, content: Any) -> bytes:
    """A value as the format has it, behind its kind."""
    if kind == TEXT:
        return text(content)
    if kind == LIST:
        item, elements = content
        return (
            struct.pack("<IQ", item, len(elements)) + b"".join(value(item, e) for e in elements)
        )  # fmt: skip
    return struct.pack(f"<{FORMS[kind]}", content)


def pair(key: str | bytes, kind: int, content: Any) -> bytes:
    return text(key) + struct.pack("<I", kind) + value(kind, content)


def header(*pairs: bytes, count: int | None = None, version: int = 3) -> bytes:
    keys = len(pairs) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, 0, keys) + b"".join(pairs)


def read(folder: Path, content: bytes, **options: Any) -> metadata.Metadata:
    path = folder / "m.gguf"
    path.write_bytes(content)
    return read_metadata(path, **options)


def refusal(folder: Path, content: bytes, **options: Any) -> str:
    with pytest.raises(BadGguf) as refused:
        read(folder, content, **options)
    return str(refused.value)


# -- what files have ------------------------------------------------------------------------


def numbers(kind: int) -> st.SearchStrategy[Any]:
    if kind in (FLOAT32, FLOAT64):
        return st.floats(width=32 if kind == FLOAT32 else 64, allow_nan=False)
    if kind == BOOL:
        return st.booleans()
    bits = 8 * struct.calcsize(f"<{FORMS[kind]}")
    signed = FORMS[kind].islower()
    least = -(2 ** (bits - 1)) if signed else 0
    return st.integers(least, least + 2**bits - 1)


def contents(kind: int) -> st.SearchStrategy[tuple[int, Any]]:
    one = st.text(max_size=20) if kind == TEXT else numbers(kind)
    return st.one_of(
        st.tuples(st.just(kind), one),
        st.tuples(st.just(LIST), st.tuples(st.just(kind), st.lists(one, max_size=20))),
    )


FILES = st.dictionaries(
    st.text(max_size=20), st.sampled_from([*FORMS, TEXT]).flatmap(contents), max_size=8
)


def expected(kind: int, content: Any) -> Value:
    if kind != LIST:
        return content  # type: ignore[no-any-return]
    item, elements = content
    return elements if item == TEXT else tuple(elements)


@given(FILES, st.sampled_from((2, 3)), st.binary(max_size=40))
def test_every_value_comes_back_whatever_follows_the_header(
    tmp_path_factory: pytest.TempPathFactory,
    file: dict[str, tuple[int, Any]],
    version: int,
    rest: bytes,
) -> None:
    pairs = [pair(key, *content) for key, content in file.items()]
    found = read(tmp_path_factory.getbasetemp(), header(*pairs, version=version) + rest)
    assert found.values == {key: expected(*content) for key, content in file.items()}
    for key, (kind, content) in file.items():
        assert found.length(key) == (len(content[1]) if kind == LIST else 0)


def test_what_is_not_wanted_is_stepped_over(tmp_path: Path) -> None:
    content = header(
        pair("a.text", TEXT, "x"),
        pair("a.texts", LIST, (TEXT, ["x", "", "yz"])),
        pair("a.numbers", LIST, (UINT16, [1, 2, 3])),
        pair("a.number", INT64, -1),
        pair("b", UINT8, 7),
    )
    found = read(tmp_path, content, wants=lambda key: key == "b")
    assert found.values == {"b": 7}
    assert (found.length("a.texts"), found.length("a.numbers"), found.length("b")) == (3, 3, 0)
    assert read(tmp_path, content, longest_list=2).values == {"a.text": "x", "a.number": -1, "b": 7}


def test_a_header_longer_than_one_piece_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"token {index}" for index in range(500)]
    content = header(pair("words", LIST, (TEXT, words)), pair("end", TEXT, "x" * 500))
    for piece in (1, 7, 64, 1000):
        monkeypatch.setattr(metadata, "_PIECE", piece)
        assert read(tmp_path, content).values == {"words": words, "end": "x" * 500}


def test_only_the_header_of_a_large_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header(pair("a", UINT8, 1)))
    with path.open("r+b") as file:
        file.truncate(100 << 30)  # sparse
    assert read_metadata(path).values == {"a": 1}


def test_the_packaged_model_s_values_are_as_the_library_reads_them(
    smollm2: Path, by_library: dict[str, Any]
) -> None:
    found = read_metadata(smollm2).values
    assert list(found) == list(by_library)
    for name, of_library in by_library.items():
        value = found[name]
        assert (list(value) if isinstance(value, tuple) else value) == of_library


# -- what files claim -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a GGUF file"),
        (b"GGUF", "is not a GGUF file"),
        (b"GGUX" + bytes(40), "is not a GGUF file"),
        (header(version=1), "has version 1 of the GGUF format, which is not supported"),
        (header(version=4), "has version 4 of the GGUF format, which is not supported"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian, which is not supported"),
        (header(count=2**64 - 1), f"claims a header of {2**64 - 1} keys"),
        (header(count=2**20) + bytes(2**24), f"claims a header of {2**20} keys"),
        (header(count=1_001) + bytes(2**24), "claims a header of 1001 keys"),
        (header(count=1), "claims a header of 1 keys"),
        (header(length(2**63), bytes(20)), f"claims a key of {2**63} bytes"),
        (header(length(65_536), bytes(70_000)), "claims a key of 65536 bytes"),
        (header(text("abcdefghi")), "ends within its header"),
        (header(pair("a", TEXT, "x")[:-2] + bytes(1)), "ends within its header"),
        (header(text("a") + struct.pack("<IQ", TEXT, 2**64 - 1)), "ends within its header"),
        (header(text("a") + struct.pack("<IIQ", LIST, UINT8, 2**62)), "ends within its header"),
        (header(text("a") + struct.pack("<IIQ", LIST, TEXT, 2**62)), "ends within its header"),
        (
            header(text("a") + struct.pack("<IIQ", LIST, TEXT, 2) + length(8) + length(2**60)),
            "ends within its header",
        ),
        (
            header(text("a") + struct.pack("<I", 13) + bytes(9)),
            "has a value of the unknown type 13",
        ),
        (
            header(text("a") + struct.pack("<IIQ", LIST, 77, 0)),
            "has a value of the unknown type 77",
        ),
        (
            header(text("a") + struct.pack("<IIQIQ", LIST, LIST, 1, LIST, 1)),
            "has a list of lists",
        ),
        (header(pair("a", UINT8, 1), pair("a", UINT8, 2)), "has the key 'a' twice"),
        (header(pair(b"\xff", UINT8, 1)), "has a string that is not UTF-8"),
        (header(pair("a", TEXT, b"\xff")), "has a string that is not UTF-8"),
        (header(pair("a", LIST, (TEXT, [b"\xc3"]))), "has a string that is not UTF-8"),
    ],
)
def test_a_claim_that_is_not_true_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    assert refusal(tmp_path, content) == why


def test_what_is_stepped_over_must_be_there_too(tmp_path: Path) -> None:
    for kind, content in ((TEXT, "four"), (INT64, 1), (LIST, (TEXT, ["four"]))):
        whole = header(pair("a", kind, content))
        refused = refusal(tmp_path, whole[:-1], wants=lambda key: False)
        assert refused == "ends within its header"


def test_a_header_is_not_longer_than_the_longest_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "LONGEST_HEADER", 1 << 20)
    content = header(pair("a", TEXT, "x" * (1 << 20)))
    assert refusal(tmp_path, content) == "has a header of more than 1 MiB"
    assert refusal(tmp_path, content, wants=lambda key: False) == "has a header of more than 1 MiB"


# Made by the test that wants them: each worker of a run collects all tests.
LARGE: dict[str, Callable[[], list[bytes]]] = {
    "keys": lambda: [pair(f"{index}", UINT8, 0) for index in range(900)],
    "empty texts": lambda: [pair("empty", LIST, (TEXT, [""] * 100_000))],
    "short texts": lambda: [pair("short", LIST, (TEXT, [f"{n:x}" for n in range(100_000)]))],
    "bytes": lambda: [pair("bytes", LIST, (UINT8, [1] * 500_000))],
    "floats": lambda: [pair("floats", LIST, (FLOAT32, [0.5] * 200_000))],
    "one text": lambda: [pair("text", TEXT, "x" * 1_000_000)],
}


@pytest.mark.parametrize("large", LARGE)
def test_a_header_takes_no_more_memory_than_some_times_its_size(tmp_path: Path, large: str) -> None:
    content = header(*LARGE[large]())
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        found = read_metadata(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.values
    assert peak < 20 * len(content) + 3 * metadata._PIECE


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 5))
def test_any_bytes_behind_the_beginning_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, count: int
) -> None:
    read_or_refuse(tmp_path_factory.getbasetemp(), header(count=count) + rest)


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5)


@settings(max_examples=300)
@given(CHANGES, st.integers(0, 10**6))
def test_a_file_with_any_bytes_in_its_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(_whole(folder))
    for at, byte in changes:
        content[at % len(content)] = byte
    read_or_refuse(folder, bytes(content))
    read_or_refuse(folder, bytes(content[: cut % len(content)]))


def read_or_refuse(folder: Path, content: bytes) -> None:
    try:
        read(folder, content)
    except BadGguf as refused:
        assert str(refused)  # noqa: PT017


def _whole(folder: Path) -> bytes:
    path = folder / "whole" / "m.gguf"
    if not path.exists():
        path.parent.mkdir()
        write_bpe(path.parent, merges=["a b"], specials=["<s>"])
    return path.read_bytes()
