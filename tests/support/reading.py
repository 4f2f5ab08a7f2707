"""Large bodies, read in this process: for tests in which time is virtual or no process may start.

A process is real, and a virtual clock does not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from trio_gateway.server.reading import readers
from trio_gateway.server.reading.messages import Answer, Question
from trio_gateway.server.reading.program import Reader


def read_here(patch: pytest.MonkeyPatch, *, everything: bool = False) -> list[Question]:
    """What is asked, in its order. `everything`: all bodies are large."""
    asked: list[Question] = []

    async def ask(
        self: Any, question: Question, payload: Sequence[bytes]
    ) -> tuple[Answer, list[bytes]]:
        asked.append(question)
        if not hasattr(self, "program"):
            self.program = Reader()
        # What goes through a pipe goes through msgpack.
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(question), type=Question)
        answer, after = self.program.answer(sent, b"".join(payload))
        said = msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer)
        return said, [piece for piece in after if piece]

    patch.setattr(readers._Reader, "_ask", ask)
    if everything:
        patch.setattr(readers, "SMALL_BYTES", -1)
        patch.setattr(readers, "LIGHT_BYTES", -1)
    return asked
