"""How many parameters and bytes the tensors of a file have, as a llama-server says it."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from trio_gateway.gguf import metadata
from trio_gateway.gguf.header import check_whole, read_header
from trio_gateway.gguf.metadata import BadGguf, read_metadata
from trio_gateway.gguf.tensors import BLOCKS, TensorTotals

F32, F16, Q4_0 = 0, 1, 2


def tensor(*shape: int, kind: int = F32, name: bytes = b"t") -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return struct.pack("<Q", len(name)) + name + dimensions + struct.pack("<IQ", kind, 0)


def totals(folder: Path, *tensors: bytes, count: int | None = None) -> TensorTotals | None:
    path = folder / "m.gguf"
    number = len(tensors) if count is None else count
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, number, 0) + b"".join(tensors))
    return read_metadata(path, tensors=True).tensors


def test_all_are_summed_up(tmp_path: Path) -> None:
    found = totals(tmp_path, tensor(10, 3), tensor(7, kind=F16), tensor(64, 2, kind=Q4_0))
    assert found == TensorTotals(30 + 7 + 128, 120 + 14 + 4 * 18)
    assert totals(tmp_path) == TensorTotals(0, 0)


def test_a_type_that_is_not_known_has_parameters_and_no_size(tmp_path: Path) -> None:
    assert totals(tmp_path, tensor(10, kind=999), tensor(5)) == TensorTotals(15, None)


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor(1)[:-1]],
        [tensor(*[1] * 5)],
        [tensor(2**62, 2**62)],
        [tensor(2**40, 2**22), tensor(2**40, 2**22)],
        [b"\xff" * 8],
    ],
)
def test_what_is_no_list_of_tensors_says_nothing_and_harms_nothing(
    tmp_path: Path, tensors: list[bytes]
) -> None:
    assert totals(tmp_path, *tensors) is None


def test_a_claim_of_many_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MOST_TENSORS", 2)
    assert totals(tmp_path, tensor(1), tensor(1)) == TensorTotals(2, 8)
    assert totals(tmp_path, tensor(1), tensor(1), tensor(1)) is None
    assert totals(tmp_path, tensor(1), count=2**63) is None


def test_the_types_are_those_of_the_library() -> None:
    """But for those that no file has."""
    known = {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: BLOCKS.get(kind, sizes) for kind, sizes in known.items()} == known
    assert known.keys() - BLOCKS.keys() <= {gguf.GGMLQuantizationType.Q8_1, 15}


def test_a_file_says_where_its_data_ends(tmp_path: Path) -> None:
    """In what the package `gguf` writes, there is nothing behind it but a filling."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    for name, size in (("a", 100), ("b", 7)):
        writer.add_tensor(name, np.zeros(size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert header.data_end is not None
    assert path.stat().st_size - 64 < header.data_end <= path.stat().st_size
    check_whole(path, header.data_end)
    path.write_bytes(path.read_bytes()[: header.data_end - 1])
    with pytest.raises(BadGguf, match="is cut off"):
        check_whole(path, read_header(path).data_end)
