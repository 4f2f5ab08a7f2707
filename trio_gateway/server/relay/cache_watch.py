"""CacheWatch: which conversation a request goes on with, and whether it breaks its cache."""

from __future__ import annotations

import logging

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.cache_breaks import CacheBreak, CacheBreaks, Chat
from trio_gateway.models.need.counted_form import CountedForm
from trio_gateway.models.need.measured_form import Form
from trio_gateway.server.access.permissions import Permissions
from trio_gateway.server.records.request_record import RequestRecord

log = logging.getLogger(__name__)


class CacheWatch:
    """`shows_excerpts`: the log may have the words around the first difference."""

    def __init__(self, *, shows_excerpts: bool = True) -> None:
        self._breaks, self.shows_excerpts = CacheBreaks(), shows_excerpts

    def note(
        self, record: RequestRecord, by: Permissions, model: ModelConfig, form: Form | None
    ) -> CacheBreak | None:
        """A request has come by these: what is found is in its record. None: it is no chat, or
        nothing is wrong."""
        if (chat := _chat_of(form)) is None:
            return None
        found = self._breaks.note(by.owner, model.name, chat)
        record.thread = chat.thread
        if found is not None:
            record.cache_break = found.where
            excerpts = f": {found.excerpts}" if self.shows_excerpts and found.excerpts else ""
            log.info("request %s for %s: %s%s", record.id, model.name, found, excerpts)
        return found


def _chat_of(form: Form | None) -> Chat | None:
    if isinstance(form, CountedForm):
        if form.kind != "chat/completions":
            return None
        return Chat(len(form.body), form.fields.messages, form.fields.tools)
    outline = None if form is None else form.measures.outline
    return None if outline is None else Chat.of_outline(len(outline.text), outline)
