"""BodySource: a request's body that goes to an engine in pieces, and the sending of it."""

from __future__ import annotations

import abc
import contextlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio_gateway.engine.http.exchange import Exchange


FIRST_ERROR_STATUS = 400


class BodySource(abc.ABC):
    """`length` in bytes, None if nobody knows. `request` is one and the same object for all
    sources that give the same request's body, so that a second try is known as such."""

    length: int | None
    request: object

    @abc.abstractmethod
    def rewind(self) -> None:
        """Begin again. Only while `can_repeat`."""

    @property
    @abc.abstractmethod
    def can_repeat(self) -> bool:
        """Whether all that was given out can be given out once more."""

    @property
    @abc.abstractmethod
    def is_begun(self) -> bool:
        """Whether a piece was given out since the last `rewind`."""

    @property
    @abc.abstractmethod
    def is_complete(self) -> bool:
        """Whether the last piece was given out."""

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """The next piece, `b""` at the end. Raises whatever is wrong with the request."""


async def send_and_receive_head(
    exchange: Exchange, stream: trio.abc.SendStream, head: bytes, source: BodySource
) -> None:
    """Send head and body while the engine may answer already. An error that it answers with ends
    the sending; any other answer waits for the end of the body.

    Raises:
        EngineDisconnected, EngineTalksGarbage, ExchangeAborted, or what `source` raises
    """
    broke_off: Exception | None = None
    lost: Exception | None = None

    async def send() -> None:
        nonlocal broke_off
        try:
            with sending:
                await _send(stream, head, source)
        except Exception as error:  # noqa: BLE001 - it is raised below, not in a group
            broke_off = error
            nursery.cancel_scope.cancel(reason="the body broke off")

    sending = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            await exchange.receive_head()
        except Exception as error:  # noqa: BLE001 - as above
            lost = error
            nursery.cancel_scope.cancel(reason="the engine is lost")
        else:
            if exchange.status >= FIRST_ERROR_STATUS:
                sending.cancel(reason="the engine has refused it")
    # The body's own trouble comes first: an engine that is lost with it is not to blame.
    if broke_off is not None:
        raise broke_off
    if lost is not None:
        raise lost


async def _send(stream: trio.abc.SendStream, head: bytes, source: BodySource) -> None:
    # One that stops reading may have answered (413 …) before: the answer is looked at in any case.
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(head)
        while piece := await source.receive():
            if source.length is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            await stream.send_all(piece)
        if source.length is None:
            await stream.send_all(b"0\r\n\r\n")
