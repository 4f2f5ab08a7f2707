"""AnswerName: an answer says the model's name that the client asked for, not the engine's own.

Engines name the model by their own `--alias` or file. Where that is the same name already, nothing
is touched. In a stream the name is replaced where it is a member, `"model":"…"`: inside a
JSON string its quotes would be escaped, so a text that speaks of models is never changed.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from trio_gateway.rawjson import members_or_none, replace_member

_MEMBER = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')

# In a longer one, the first member of that name is changed: that is two searches.
_DECODED_MAX_BYTES = 1 << 20


@lru_cache(maxsize=1000)
def _written(name: str) -> tuple[bytes, bytes, bytes]:
    """The name in JSON, as a member, and as Python's own encoder writes that."""
    text = msgspec.json.encode(name)
    return text, b'"model":' + text, b'"model": ' + text


class AnswerName:
    """For one stream: `in_piece` for each piece, then `rest`. `in_whole` is for an answer in one.

    `asked` empty: the answer stays as it is.
    """

    def __init__(self, asked: str) -> None:
        self._asked, self._member, _ = _written(asked)
        self._engines: bytes | None = None  # the member as the engine writes it
        self._passes = not asked
        self._held: list[bytes] = []  # of a line; joined once its end is there

    @classmethod
    def in_whole(cls, asked: str, body: bytes) -> bytes:
        """A whole JSON answer; what is not a JSON object stays as it is."""
        name, member, spaced = _written(asked)
        if not asked or member in body or spaced in body:
            return body
        if len(body) > _DECODED_MAX_BYTES:
            found = _MEMBER.search(body)
            return body if found is None else body.replace(found[0], member, 1)
        named = (members_or_none(body) or {}).get("model", b"")
        if not bytes(named).startswith(b'"'):
            return body
        return replace_member(body, "model", name)

    def in_piece(self, piece: bytes) -> bytes:
        """A piece of a stream. A line that is cut in two waits for its end."""
        if self._passes:
            return piece
        text = piece
        if self._held or not piece.endswith(b"\n"):
            end = piece.rfind(b"\n") + 1
            if not end:
                self._held.append(piece)
                return b""
            text = b"".join((*self._held, piece[:end]))
            self._held = [piece[end:]] if end < len(piece) else []
        if self._engines is None:
            found = _MEMBER.search(text)
            if found is None:
                return text
            if found[1] == self._asked:
                self._passes = True
                return text + self.rest()
            self._engines = found[0]
        return text.replace(self._engines, self._member)

    def rest(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held = b"".join(self._held), []
        return held if self._engines is None else held.replace(self._engines, self._member)
