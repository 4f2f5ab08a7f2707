"""Reads the header of a GGUF file: its keys and their values, and how large its tensors are.

A file may claim anything, so no length and no count is believed before it fits into the file and
into LONGEST_HEADER. A hostile header costs no more than an honest one of the same size: the bytes
are read as they are needed, in pieces, and a value takes at most some ten times its bytes.

SmolLM2's header, with 49,000 tokens and as many merges, takes 16 ms where those lists are stepped
over, and 47 ms where they are read.

The file is read, not mapped: one that is cut short in the meantime would end the process.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from trio_gateway.gguf.tensors import TensorTotals, size_of

Scalar: TypeAlias = bool | int | float
Value: TypeAlias = Scalar | str | list[str] | tuple[Scalar, ...]

LONGEST_HEADER = 64 << 20  # bytes; the largest in use have 15 MB
MOST_KEYS = 1_000  # files in use have fewer than 100
MOST_TENSORS = 100_000  # files in use have up to 2,000; each takes 4 µs
_MOST_DIMENSIONS = 4
LONGEST_KEY = 65_535  # bytes, by the format's own rules

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_START = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of keys
_LENGTH = struct.Struct("<Q")
_KIND = struct.Struct("<I")
_TEXT, _LIST, _COUNT = 8, 9, 10
_SCALARS = {
    kind: struct.Struct(f"<{form}")
    for kind, form in enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))
} | {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_LEAST_PAIR = 8 + 4 + 1  # bytes: the length of a key, the kind of its value, and the value
_ALIGNMENT_KEY, _ALIGNMENT = "general.alignment", 32  # bytes, where a file does not say it
_PIECE = 1 << 20  # bytes read at a time


class BadGguf(Exception):
    """The header cannot be used. The message is a predicate of the file: `is not a GGUF file`."""


class Metadata:
    """The values that were wanted, and the length of every list. `tensors`: all of this file; None:
    they were not asked for, or are not what they should be. `data_end`: where the last one of them
    ends in the file, in bytes; None in the same cases."""

    def __init__(
        self,
        values: dict[str, Value],
        lengths: dict[str, int],
        tensors: TensorTotals | None = None,
        data_end: int | None = None,
    ) -> None:
        self._values, self._lengths = values, lengths
        self.tensors, self.data_end = tensors, data_end

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def values(self) -> Mapping[str, Value]:
        """In the order of the file."""
        return self._values

    def length(self, key: str) -> int:
        """Elements of the list at this key, also of one that was stepped over; 0 without one."""
        return self._lengths.get(key, 0)

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


def _everything(key: str) -> bool:
    return True


def read_metadata(
    path: Path,
    wants: Callable[[str], bool] = _everything,
    *,
    longest_list: int | None = None,
    tensors: bool = False,
    each: Callable[[str, int | None], None] | None = None,
) -> Metadata:
    """The header's values at the keys that are wanted, and the totals of its tensors, if they are.
    `each` is told the name of each tensor and its bytes; None: its type is not known.

    A list of more than `longest_list` elements is stepped over. Blocks while the file is read.

    Raises:
        BadGguf: the file cannot be read, is not a GGUF file of a known version, or is broken.
    """
    with _header_of(path) as header:
        found = header.read(wants, longest_list)
        if tensors:
            found.tensors, found.data_end = header.tensors(each)
        return found


def check_beginning(path: Path) -> None:
    """Look at the first bytes only: whether it is a GGUF file that can be read.

    Raises:
        BadGguf: as for `read_metadata`.
    """
    with _header_of(path) as header:
        header.key_count()


@contextmanager
def _header_of(path: Path) -> Iterator[_Header]:
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadGguf("is not a regular file")
            yield _Header(file, status.st_size)
    except OSError as error:
        raise BadGguf(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL byte
        raise BadGguf("cannot be read: not a path") from None


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


class _Header:
    """Steps through the bytes of a header. Raises BadGguf, and OSError of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._data, self._at = bytearray(), 0
        self._tensor_count = 0
        self._alignment = _ALIGNMENT  # of the tensors' data

    def read(self, wants: Callable[[str], bool], longest_list: int | None) -> Metadata:
        count = self.key_count()
        most = LONGEST_HEADER if longest_list is None else longest_list
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        seen = set[str]()
        for _ in range(count):
            key = self._key()
            if key in seen:
                raise BadGguf(f"has the key {key[:80]!r} twice")
            seen.add(key)
            wanted = wants(key)
            kind = self._take(_KIND)
            if kind == _LIST:
                item, lengths[key] = self._take(_KIND), self._take(_LENGTH)
                if wanted and lengths[key] <= most:
                    values[key] = self._list(item, lengths[key])
                else:
                    self._skip_list(item, lengths[key])
            elif kind == _TEXT:
                if wanted:
                    values[key] = self._text()
                else:
                    self._skip(self._take(_LENGTH))
            elif wanted or key == _ALIGNMENT_KEY:
                number = self._scalars(kind, 1)[0]
                if key == _ALIGNMENT_KEY and isinstance(number, int) and number > 0:
                    self._alignment = number
                if wanted:
                    values[key] = number
            else:
                self._skip(_scalar(kind).size)
        return Metadata(values, lengths)

    def tensors(
        self, each: Callable[[str, int | None], None] | None = None
    ) -> tuple[TensorTotals | None, int | None]:
        """All of them, behind the keys: each has a name, its dimensions, a type and a place. And
        where the last one ends; of types that are not known, where it begins."""
        total: TensorTotals | None = TensorTotals()
        end = 0
        try:
            if self._tensor_count > MOST_TENSORS:
                return None, None
            for _ in range(self._tensor_count):
                name = "" if each is None else self._text()
                if each is None:
                    self._skip(self._take(_LENGTH))
                dimensions = self._take(_KIND)
                if total is None or dimensions > _MOST_DIMENSIONS:
                    return None, None
                shape = [int(size) for size in self._scalars(_COUNT, dimensions)]
                kind = self._take(_KIND)
                total = total.plus(shape, kind)
                size = size_of(shape, kind)
                end = max(end, self._take(_LENGTH) + (size or 0))
                if each is not None:
                    each(name, size)
        except BadGguf:
            return None, None
        if total is None:
            return None, None
        start = -(-self._at // self._alignment) * self._alignment
        return total, start + end if self._tensor_count else self._at

    def key_count(self) -> int:
        if self._size < _START.size:
            raise BadGguf("is not a GGUF file")
        self._load(_START.size)
        magic, version, self._tensor_count, count = _START.unpack_from(self._data)
        self._at = _START.size
        if magic != _MAGIC:
            raise BadGguf("is not a GGUF file")
        if version not in _VERSIONS:
            if int.from_bytes(self._data[4:8], "big") in _VERSIONS:
                raise BadGguf("is big-endian, which is not supported")
            raise BadGguf(f"has version {version} of the GGUF format, which is not supported")
        if count > MOST_KEYS or count * _LEAST_PAIR > self._size - _START.size:
            raise BadGguf(f"claims a header of {count} keys")
        return int(count)

    def _key(self) -> str:
        length = self._take(_LENGTH)
        if length > LONGEST_KEY:
            raise BadGguf(f"claims a key of {length} bytes")
        return self._decode(length)

    def _text(self) -> str:
        return self._decode(self._take(_LENGTH))

    def _decode(self, length: int) -> str:
        start = self._at
        self._skip(length)
        try:
            return self._data[start : self._at].decode()
        except UnicodeDecodeError:
            raise BadGguf("has a string that is not UTF-8") from None

    def _take(self, form: struct.Struct) -> int:
        start = self._at
        self._skip(form.size)
        value: int = form.unpack_from(self._data, start)[0]
        return value

    def _scalars(self, kind: int, count: int) -> tuple[Scalar, ...]:
        form, start = _scalar(kind), self._at
        self._skip(count * form.size)
        return struct.unpack_from(f"<{count}{form.format[1:]}", self._data, start)

    def _list(self, item: int, count: int) -> list[str] | tuple[Scalar, ...]:
        if item != _TEXT:
            return self._scalars(item, count)
        start, found = self._at, list[str]()
        data = self._data
        try:
            for end in self._text_ends(count):
                found.append(data[start + 8 : end].decode())
                start = end
        except UnicodeDecodeError:
            raise BadGguf("has a string that is not UTF-8") from None
        return found

    def _skip_list(self, item: int, count: int) -> None:
        if item != _TEXT:
            self._skip(count * _scalar(item).size)
        else:
            for _ in self._text_ends(count):
                pass

    def _text_ends(self, count: int) -> Iterator[int]:
        """Where each text of a list ends; behind the last one afterwards. Lists of texts are nearly
        all of a header, so that this loop is all of its cost."""
        self._check(self._at + count * _LENGTH.size)
        data, at, length_at = self._data, self._at, _LENGTH.unpack_from
        loaded = len(data)
        for _ in range(count):
            end = at + 8
            if end > loaded:
                loaded = self._load(end)
            end += length_at(data, at)[0]
            if end > loaded:
                loaded = self._load(end)
            at = end
            yield at
        self._at = at

    def _skip(self, count: int) -> None:
        """Go on by that many bytes, which are loaded then."""
        self._load(self._at + count)
        self._at += count

    def _load(self, end: int) -> int:
        """Have at least the first `end` bytes of the file; how many there are, then."""
        self._check(end)
        while len(self._data) < end:
            piece = self._file.read(_PIECE)
            if not piece:
                raise BadGguf("ends within its header")
            self._data += piece
        return len(self._data)

    def _check(self, end: int) -> None:
        if end > self._size:
            raise BadGguf("ends within its header")
        if end > LONGEST_HEADER:
            raise BadGguf(f"has a header of more than {LONGEST_HEADER >> 20} MiB")


def _scalar(kind: int) -> struct.Struct:
    """The form of a value that is neither a text nor a list."""
    form = _SCALARS.get(kind)
    if kind == _LIST:
        raise BadGguf("has a list of lists")
    if form is None:
        raise BadGguf(f"has a value of the unknown type {kind}")
    return form
