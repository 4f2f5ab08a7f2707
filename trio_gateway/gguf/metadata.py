"""What a GGUF file says about its vocabulary and chat template, read without numpy.

The package `gguf` makes an array of each token: 2 s for a vocabulary of 98,000 strings, and 0.25 s
to import. One pass over the bytes takes 0.05 s. Only the helper process reads files with this: a
file may claim anything.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from trio_gateway.models.counting.refusal import CannotCount

Value: TypeAlias = bool | int | float | str | list[str] | tuple[int | float, ...]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# The largest headers in use have 15 MB. More is not mapped, so a file of 100 GB costs no more.
_LONGEST_HEADER = 256 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip


class Metadata:
    """The values of a header whose keys begin with `tokenizer.` or `general.`."""

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str, default: int) -> int:
        value = self._values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        return value if isinstance(value, bool) else default

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty if there is none."""
        value = self._values.get(key)
        return value if isinstance(value, list) else []

    def numbers(self, key: str) -> Sequence[int | float]:
        """A list of numbers; empty if there is none."""
        value = self._values.get(key)
        return value if isinstance(value, tuple) else ()


def read_metadata(path: Path) -> Metadata:
    """The part of a GGUF file's header that a prompt's tokens depend on.

    Raises:
        CannotCount: it is no GGUF file, or a broken one, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = min(os.fstat(file.fileno()).st_size, _LONGEST_HEADER)
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                return Metadata(_Reader(data).read())
    except OSError as error:
        raise CannotCount(f"the file cannot be read: {error.strerror}") from None
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise CannotCount(f"the file's header is broken ({type(error).__name__})") from None


class _Reader:
    """Steps through the key-value pairs. Raises what `struct` and `dict` raise on broken ones."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def read(self) -> dict[str, Value]:
        magic, version = self._data[:4], struct.unpack_from("<I", self._data, 4)[0]
        if magic != _MAGIC or version not in _VERSIONS:
            raise CannotCount("it is no GGUF file of version 2 or 3, little endian")
        count = struct.unpack_from("<Q", self._data, 16)[0]  # behind the number of tensors
        self._at = 24
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self._string()
            kind = self._scalar("I")
            value = self._value(int(kind))
            if key.startswith(("tokenizer.", "general.")):
                values[key] = value
        return values

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        item, length = int(self._scalar("I")), int(self._scalar("Q"))
        if length > len(self._data):
            raise ValueError("a list longer than the file")
        if item == _STRING:
            return self._strings(length)
        form = f"<{length}{_SCALARS[item]}"
        value = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def _scalar(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(f"<{form}", self._data, self._at)[0]
        self._at += struct.calcsize(f"<{form}")
        return value

    def _string(self) -> str:
        return self._strings(1)[0]

    def _strings(self, length: int) -> list[str]:
        data, at, lengths = self._data, self._at, struct.Struct("<Q")
        found = []
        for _ in range(length):
            start = at + 8
            at = start + lengths.unpack_from(data, at)[0]
            if at > len(data):
                raise ValueError("a string beyond the file's end")
            found.append(data[start:at].decode())
        self._at = at
        return found
