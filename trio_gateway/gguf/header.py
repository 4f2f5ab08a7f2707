"""What the header of a GGUF file says about its model, read by the package `gguf`.

The package brings numpy (20 MB of memory), and a broken file can make it loop for long or fail
with anything; so it runs in a process of its own, one for all files, which is ended after a time.
This file is that program, too: `python -I gguf_header.py FILE…` prints a JSON array with one
element for each file. It imports nothing of trio_gateway.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gguf import GGUFReader

log = logging.getLogger(__name__)

_READ_LIMIT_S = 30.0  # for all files, some of them perhaps on a slow disk
_LONGEST_TEXT = 200  # characters of what describes the file; a licence may be a book
_LONGEST_LIST = 4096  # elements; lists of one per layer are shorter, those of the vocabulary longer

_MIDDLE = ("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id")

Number = bool | int


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`values` are the architecture's own integers, without its name: `"block_count"`.

    `vocabulary`: tokens, 0 if the file names none. `general`: texts and integers that describe the
    file, `"size_label"`. `chat_template` None: it has none. `fills_in`: it has tokens for a text in
    the middle.
    """

    architecture: str
    vocabulary: int
    values: dict[str, Number | list[Number]]
    general: dict[str, int | str] = {}
    chat_template: str | None = None
    fills_in: bool = False

    @property
    def is_embedding(self) -> bool:
        """Whether the model makes vectors of texts and cannot go on with one."""
        return "pooling_type" in self.values or self.values.get("attention.causal") in (0, False)

    def number(self, key: str) -> int | None:
        """The integer at this key; the largest, where the file has one for each layer."""
        value = self.values.get(key)
        if isinstance(value, list):
            return int(max(value)) if value else None
        return None if value is None else int(value)

    def per_layer(self, key: str, layers: int) -> list[int] | None:
        """The integer at this key for each layer, however the file has it; None if it has none."""
        value = self.values.get(key)
        if isinstance(value, list):
            return [int(v) for v in value] if len(value) >= layers else None
        return None if value is None else [int(value)] * layers


def read_headers(paths: Sequence[str]) -> dict[str, GgufHeader]:
    """The headers of the files that can be read. Blocks: 0.25 s, and 0.02 s a file."""
    if not paths:
        return {}
    command = [sys.executable, "-I", __file__, *paths]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_READ_LIMIT_S,
            check=True,
        )  # fmt: skip
        found = msgspec.json.decode(done.stdout, type=list[GgufHeader | None])
    except subprocess.CalledProcessError as error:
        log.debug("GGUF headers cannot be read: %s", error.stderr.decode(errors="replace"))
        return {}
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        log.debug("GGUF headers cannot be read: %s", error)
        return {}
    return {path: header for path, header in zip(paths, found, strict=True) if header}


def _main() -> None:
    found: list[GgufHeader | None] = []
    for path in sys.argv[1:]:
        try:
            found.append(_header(path))
        # What a file that is no GGUF, or half of one, raises in there is documented nowhere.
        except Exception as error:  # noqa: BLE001
            print(f"{path}: {error!r}", file=sys.stderr)
            found.append(None)
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _header(path: str) -> GgufHeader:
    reader = _quick_reader(path)
    architecture = str(reader.fields["general.architecture"].contents())
    values: dict[str, Number | list[Number]] = {}
    general: dict[str, int | str] = {}
    vocabulary = 0
    for name, field in reader.fields.items():
        if name == "tokenizer.ggml.tokens":
            vocabulary = int(field.parts[4][0])  # after the key, the type, and the items' type
        if name.startswith("general.") and field.data:
            value = field.contents()
            if isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT):
                general[name.removeprefix("general.")] = value
        if not name.startswith(f"{architecture}.") or not field.data:
            continue
        value = field.contents()
        if all(isinstance(v, int) for v in (value if isinstance(value, list) else [value])):
            values[name.removeprefix(f"{architecture}.")] = value
    template = reader.fields.get("tokenizer.chat_template")
    return GgufHeader(
        architecture=architecture,
        vocabulary=vocabulary,
        values=values,
        general=general,
        chat_template=None if template is None else str(template.contents()),
        fills_in=any(name in reader.fields for name in _MIDDLE),
    )


def _quick_reader(path: str) -> GGUFReader:
    """A GGUFReader that steps over what nobody asks for here: long lists, and the tensors.

    The package's own makes an array of each token and merge: 2.1 s and 160 MB for the 98,000 of
    SmolLM2, where this one takes 0.02 s. The three methods are not part of the package's public
    interface; if it drops them, its own reading takes place, slowly, with the same result.
    """
    from struct import unpack_from

    import numpy as np
    from gguf import GGUFReader, GGUFValueType

    class QuickReader(GGUFReader):
        def _get_field_parts(self, orig_offs, raw_type):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if raw_type == GGUFValueType.ARRAY:
                item_type = self._get(orig_offs, np.uint32)
                length = self._get(orig_offs + 4, np.uint64)
                if int(length[0]) > _LONGEST_LIST or item_type[0] == GGUFValueType.STRING:
                    end = self._after_items(orig_offs + 12, int(item_type[0]), int(length[0]))
                    kind = GGUFValueType(int(item_type[0]))
                    return (
                        end - orig_offs, [item_type, length], [], [GGUFValueType.ARRAY, kind]
                    )  # fmt: skip
            return super()._get_field_parts(orig_offs, raw_type)

        def _after_items(self, start: int, kind: int, count: int) -> int:
            """The offset behind the items of a list."""
            if kind != GGUFValueType.STRING:
                scalar = self.gguf_scalar_to_np[GGUFValueType(kind)]
                end = start + count * np.dtype(scalar).itemsize
            else:
                end, form = start, self._length_format()
                view = self.data.data
                for _ in range(count):  # a length beyond the file's end: struct.error
                    end += 8 + unpack_from(form, view, end)[0]
            if end > len(self.data):
                raise ValueError("the file ends within its header")
            return end

        def _length_format(self) -> str:
            swapped = self.byte_order == "S"
            return {"little": "<Q", "big": ">Q"}[
                ("big" if sys.byteorder == "little" else "little") if swapped else sys.byteorder
            ]

        def _build_tensor_info(self, offs, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            # Their sizes are the file's. And a type that is newer than the package is no obstacle.
            return offs, []

    return QuickReader(path)


if __name__ == "__main__":
    _main()
