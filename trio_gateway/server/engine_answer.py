"""An engine's answer before anything of it is sent: read whole, lost, or refused as too long."""

from __future__ import annotations

import msgspec

from trio_gateway.engine.http_exchange import Exchange
from trio_gateway.engine.lease import Lease
from trio_gateway.server import sse

# An answer with a known length up to this is read whole before its first byte is sent, so that an
# engine that dies in it costs a retry and not the answer. Longer ones are passed through.
WHOLE_ANSWER_MAX_BYTES = 16 * 1024**2


class EngineLost(Exception):
    """The engine went away before anything of its answer was sent."""


class Outgrown(Exception):
    """The engine said that the prompt does not fit into its context."""

    def __init__(self, message: str, prompt_tokens: int, context: int) -> None:
        super().__init__(message)
        self.message, self.prompt_tokens, self.context = message, prompt_tokens, context


class _EngineError(msgspec.Struct):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _EngineErrorBody(msgspec.Struct):
    error: _EngineError


def outgrown_of(body: bytes, lease: Lease) -> Outgrown | None:
    """Of an engine's 400, if that is what it says."""
    try:
        error = msgspec.json.decode(body, type=_EngineErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if error.type != "exceed_context_size_error" or error.n_prompt_tokens < 1:
        return None
    info = lease.engine.info
    served = info.context if info is not None else lease.engine.variant.context
    return Outgrown(error.message, error.n_prompt_tokens, error.n_ctx or served)


def is_whole(exchange: Exchange) -> bool:
    """Whether the answer's length is known and small enough to be read whole. Events are passed on
    one by one, also where their length is known."""
    headers = dict(exchange.headers)
    if sse.is_event_stream(headers.get(b"content-type", b"").decode("latin-1")):
        return False
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) <= WHOLE_ANSWER_MAX_BYTES


async def read_whole(exchange: Exchange) -> bytes:
    """Raises as `Exchange.receive` does."""
    pieces = []
    while piece := await exchange.receive():
        pieces.append(piece)
    return b"".join(pieces)
