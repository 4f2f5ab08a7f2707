"""An engine's answer before anything of it is sent: read whole, lost, or refused as too long."""

from __future__ import annotations

import re

import msgspec

from trio_gateway.engine.errors import KEY_REFUSED
from trio_gateway.engine.http.exchange import Exchange
from trio_gateway.engine.http.whole_answer import whole_up_to
from trio_gateway.engine.lease import Lease
from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.endpoint import Need
from trio_gateway.server.api.errors import key_refused
from trio_gateway.server.api.size_refusal import size_refusal
from trio_gateway.server.budget import Hold, NoRoom
from trio_gateway.server.relay.ask import Ask

_SMALL_BYTES = 65536  # nearly all answers, which are sent at once
_SAID_CHARACTERS = 300


# Of an input that is to be computed at once: a 500, as if the engine were to blame.
_BEYOND_BATCH = re.compile(
    rb'"message": ?"input \((\d+) tokens\) is too large to process\. '
    rb".*\(current batch size: (\d+)\)"
)
_BATCH_CURE = (
    "Its engine computes an input at once, in a batch of no more; raise --ubatch-size and "
    "--batch-size in its `args`"
)


class Outgrown(Exception):
    """The engine said that the prompt does not fit into its context. `refused`: a variant with no
    larger context would say the same. `why`: what can be done about it, as a sentence. `is_least`:
    the prompt may have more tokens."""

    def __init__(
        self,
        prompt_tokens: int,
        context: int,
        refused: int,
        why: str = "",
        *,
        is_least: bool = False,
    ) -> None:
        super().__init__(f"{prompt_tokens} tokens are more than its context of {context} holds")
        self.prompt_tokens, self.context, self.refused = prompt_tokens, context, refused
        self.why, self.is_least = why, is_least


def outgrown_of(body: bytes, lease: Lease) -> Outgrown | None:
    """Of an engine's error, if that is what it says."""
    info = lease.engine.info
    served = info.context if info is not None else lease.engine.variant.holds
    if match := _BEYOND_BATCH.search(body):
        return Outgrown(int(match[1]), int(match[2]), served, _BATCH_CURE)
    if (said := size_refusal(body)) is None:
        return None
    context = said.context or served
    return Outgrown(said.prompt_tokens, context, context, is_least=said.is_least)


def said_of(body: bytes) -> str:
    """What an engine's error says, on one line; empty if that is nothing for a reader."""
    match decode_or_none(body):
        case {"error": {"message": str(said)}} | {"error": str(said)}:
            pass
        case {"message": str(said)} | {"detail": str(said)}:
            pass
        case None if not body.lstrip().startswith(b"<"):  # a page of a proxy's
            said = body[:_SAID_CHARACTERS].decode("utf-8", "replace")
        case _:
            return ""
    said = " ".join(said.split())
    return said if len(said) <= _SAID_CHARACTERS else f"{said[: _SAID_CHARACTERS - 1]}…"


def _is_held(hold: Hold, size: int) -> bool:
    try:
        hold.take(size)
    except NoRoom:
        return False
    return True


class Beginning(msgspec.Struct, frozen=True):
    """The first piece of an answer, which may be all of it."""

    piece: bytes
    is_whole: bool


async def read_beginning(exchange: Exchange, hold: Hold) -> Beginning:
    """All of the answer, if it is one to be read whole, no longer than that, and there is room for
    it; otherwise its first piece, and `exchange` has the rest. Raises as `Exchange.receive`
    does."""
    limit = whole_up_to(exchange.status, exchange.headers)
    piece = await exchange.receive()
    if limit and exchange.complete and len(piece) <= min(limit, _SMALL_BYTES):
        return Beginning(piece, True)  # as nearly all come
    pieces, size = [], 0
    while piece:
        pieces.append(piece)
        size += len(piece)
        if size > limit or (size > _SMALL_BYTES and not _is_held(hold, len(piece))):
            return Beginning(b"".join(pieces), False)
        piece = await exchange.receive()
    return Beginning(b"".join(pieces), limit > 0)


def raise_if_refused(ask: Ask, exchange: Exchange, beginning: Beginning, lease: Lease) -> None:
    """For an answer that is an error: of the gateway's own key, or of the prompt's size.

    Raises:
        ApiError, Outgrown
    """
    if exchange.status in KEY_REFUSED:
        said = said_of(beginning.piece) if beginning.is_whole else ""
        raise key_refused(lease.engine.refusal(exchange.status, said))
    if not beginning.is_whole or ask.endpoint.need is Need.UNCOUNTED:
        return
    if exchange.status not in (400, 500):  # the second of an input that is longer than a batch
        return
    if (outgrown := outgrown_of(beginning.piece, lease)) is None:
        return
    if outgrown.prompt_tokens >= outgrown.context or ask.selection.asked:
        raise outgrown  # otherwise it is no sum that the gateway could know
