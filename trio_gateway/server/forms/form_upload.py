"""FormUpload: a multipart form on its way to an engine, and the part of it that is kept for that.

Read until `model` is known; that part is kept (spool.py), as the engine needs it too. What
comes after it goes to the engine as it comes, and is read along: a form that turns out to be
broken, or to name a second model, ends there. A form of up to 1 MiB is kept whole, so that it can
be sent again if its engine is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.budget import NoRoom
from trio_gateway.server.forms.form_type import boundary_of, type_with
from trio_gateway.server.forms.multipart import FormReader, ModelField
from trio_gateway.server.forms.spool import MEMORY_BYTES, Spool, SpoolFull
from trio_gateway.server.http.upload import Upload
from trio_gateway.tasks import beside

PIECE_BYTES = 256 * 1024  # of one read of what is kept
KEEP_BYTES = MEMORY_BYTES  # this much is kept in any case, at the beginning and at the end


class FormUpload:
    """One form, of a request with these Content-Type headers. `close` it; what is kept goes then.

    `content_type`: what an engine is told in their place.

    Raises:
        ApiError: 400, there is not exactly one, with one boundary.
    """

    def __init__(self, upload: Upload, content_types: Sequence[str]) -> None:
        self._upload = upload
        boundary = boundary_of(content_types)
        self.content_type = type_with(boundary)
        self._reader = FormReader(boundary)
        length = upload.length
        self._spool = Spool(upload.hold, KEEP_BYTES if length is None else min(length, KEEP_BYTES))
        self.request = object()  # which one this is, of all its sources
        self._finished = False  # all was read, and it is well
        self._is_full = False  # there is no room to keep more
        self._lost = False  # a piece went to an engine that was not kept

    @property
    def can_repeat(self) -> bool:
        """Whether all that went to an engine can go to another one."""
        return not self._lost

    async def read_model(self) -> str:
        """The form's `model`. The rest of a small form is also read.

        Raises:
            ApiError: 400 as FormReader does, what Upload raises, 507 if the disk is full, NoRoom if
                `model` has not come by the time that there is no room to keep more.
        """
        while not self._finished and self._reader.model is None:
            await self._keep_more()
        with suppress(NoRoom):
            while not self._finished and not self._is_full and self._is_nearly_kept():
                await self._keep_more()
        return self.model.name

    def refuse_choosers(self, refuse: Callable[[str], ApiError]) -> None:
        """Raise this for a field that chooses other models, of what is here and what is to come."""
        self._reader.refuse_choosers(refuse)

    def _is_nearly_kept(self) -> bool:
        length = self._upload.length
        left = None if length is None else length - self._upload.taken
        return self._spool.size <= KEEP_BYTES or (left is not None and left <= KEEP_BYTES)

    async def _keep_more(self) -> None:
        piece = await self._take()
        try:
            await self._spool.append(piece)
        except SpoolFull as full:
            message = f"no room for the upload: {full}; put `model` before the file in the form"
            raise ApiError(507, message, "server_error", code="upload_not_kept") from None
        except NoRoom:
            self._is_full = True
            raise

    async def _take(self) -> bytes:
        """The next piece of the client, checked."""
        piece = await self._upload.receive()
        if piece:
            self._reader.feed(piece)
        else:
            self._reader.finish()
            self._finished = True
        return piece

    @asynccontextmanager
    async def reading_on(self) -> AsyncIterator[None]:
        """While the block waits for an engine, the form is read on, and kept. So a client that
        goes away is noticed, and what came in the meantime does not come at the engine's expense.
        If there is no room to keep more, the rest waits at the client.

        Raises:
            ApiError: as `read_model`; the block is cancelled then.
        """

        async def read_on() -> None:
            with suppress(NoRoom):
                while not self._finished and not self._is_full:
                    await self._keep_more()

        async with beside(read_on):
            yield

    def source(self, model: str | None = None) -> FormSource:
        """The form for an engine, after `read_model`; with this name in it, if its engine has one
        of its own."""
        return FormSource(self, model)

    def close(self) -> None:
        self._spool.close()

    # -- for its FormSource -----------------------------------------------------------------------

    @property
    def model(self) -> ModelField:
        """After `read_model`."""
        assert self._reader.model is not None
        return self._reader.model

    @property
    def kept_bytes(self) -> int:
        """As many are kept, from the beginning on."""
        return self._spool.size

    @property
    def is_read(self) -> bool:
        """All of the form was read, and it is well."""
        return self._finished

    @property
    def length(self) -> int | None:
        """Of the whole form, if that is known."""
        return self._spool.size if self._finished else self._upload.length

    async def read_kept(self, start: int, most: int) -> bytes:
        return await self._spool.read(start, most)

    async def pass_on(self) -> bytes:
        """The next piece after what is kept; it is not kept. `b""`: the form is complete.

        Raises:
            ApiError: as `read_model`.
        """
        piece = await self._take()
        if piece and not self._lost:
            self._lost = True
            self._spool.close()  # it cannot be sent again anyway
        return piece


class FormSource(BodySource):
    """What is kept of a form, with its model's name replaced if need be, then the rest of it."""

    def __init__(self, form: FormUpload, model: str | None) -> None:
        self.request = form.request
        self._form = form
        self._field = form.model
        self._new = None if model is None else model.encode()
        self._position = 0
        self.length = form.length
        if self.length is not None and self._new is not None:
            self.length += len(self._new) - (self._field.end - self._field.start)

    def rewind(self) -> None:
        assert self.can_repeat
        self._position = 0

    @property
    def can_repeat(self) -> bool:
        return self._form.can_repeat

    @property
    def is_begun(self) -> bool:
        return self._position > 0

    @property
    def is_complete(self) -> bool:
        return self._form.is_read and self._position >= self._form.kept_bytes

    async def receive(self) -> bytes:
        """Raises ApiError, as `FormUpload.read_model` does."""
        form, position = self._form, self._position
        if position >= form.kept_bytes:
            return b"" if form.is_read else await form.pass_on()
        if position == self._field.start and self._new is not None:
            self._position = self._field.end
            return self._new
        most = PIECE_BYTES
        if self._new is not None and position < self._field.start:
            most = min(most, self._field.start - position)
        piece = await form.read_kept(position, most)
        self._position += len(piece)
        return piece
