"""From an Ask to its lease: it waits for an engine, and may be counted again meanwhile."""

from __future__ import annotations

import msgspec

from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.scheduling.events import Refusal, Reject
from trio_gateway.held import Held
from trio_gateway.models.model_selector import ContextLengthExceeded
from trio_gateway.server.api.errors import from_reject
from trio_gateway.server.relay.ask import Ask


class Shrunk(Exception):
    """No variant holds the request any more: contexts turned out to be smaller than declared."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


async def lease_for(ask: Ask, manager: EngineManager, stack: Held) -> tuple[Ask, Lease]:
    """Its lease, which the stack holds, and the request as it is to be sent.

    Raises:
        ApiError: no engine may have it, or none started.
        Shrunk
    """
    selection, recount, sender = ask.selection, ask.recount, ask.sender
    caller = sender.caller
    request = ask.wait.request = manager.lease(
        selection.model, selection.need, start_need=selection.start_need,
        client=caller.client, priority=caller.priority, prompt=ask.prompt,
        read_bytes=ask.read_bytes, progress=ask.progress(),
        least_need=selection.least_need if recount is not None else None, recount=recount,
    )  # fmt: skip
    record = sender.state.record
    record.waits(request)
    try:
        if ask.form is None:
            lease = await stack.enter_async_context(request)
        else:
            async with ask.form.reading_on():
                lease = await stack.enter_async_context(request)
        if recount is not None and recount.selection.is_provisional:
            await recount()
    except ContextLengthExceeded as error:
        raise ask.too_long(error.excess) from None
    except LeaseRefused as refused:
        if refused.reject.refusal is Refusal.TOO_LARGE:
            raise Shrunk(refused.reject) from None
        raise from_reject(ask.model.name, refused.reject) from None
    if recount is not None and recount.selection is not selection:
        ask, selection = ask.recounted(), recount.selection
        if (progress := lease.progress) is not None:
            progress.prompt, progress.limit = selection.prompt, selection.answer
    record.selection = selection
    record.has(lease)
    return (ask if selection.clamped is None else ask.as_sent()), lease


async def chosen_anew(ask: Ask, shrunk: Shrunk) -> Ask:
    """With the contexts as they are. Raises ApiError: 400, none of them holds it."""
    if ask.select_anew is None:
        raise from_reject(ask.model.name, shrunk.reject)
    try:
        selection = await ask.select_anew()
    except ContextLengthExceeded as error:
        raise ask.too_long(error.excess) from None
    if ask.recount is not None:
        ask.recount.selection = selection
    return msgspec.structs.replace(ask, selection=selection)
