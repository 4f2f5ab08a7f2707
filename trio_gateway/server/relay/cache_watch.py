"""CacheWatch: what the log says of requests that break their conversation's cache."""

from __future__ import annotations

import logging

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.cache_breaks import CacheBreak, CacheBreaks, Chat
from trio_gateway.models.need.counted_form import CountedForm
from trio_gateway.models.need.measured_form import Form

log = logging.getLogger(__name__)


class CacheWatch:
    """`shows_excerpts`: the log may have the words around the first difference."""

    def __init__(self, *, shows_excerpts: bool) -> None:
        self._breaks, self._shows_excerpts = CacheBreaks(), shows_excerpts

    def note(
        self, request_id: str, key: str | None, model: ModelConfig, form: Form | None
    ) -> CacheBreak | None:
        """A request has come that has this key. None: it is no chat, or nothing is wrong."""
        if (chat := _chat_of(form)) is None:
            return None
        found = self._breaks.note(key or "", model.name, chat)
        if found is not None:
            excerpts = f": {found.excerpts}" if self._shows_excerpts and found.excerpts else ""
            log.info("request %s for %s: %s%s", request_id, model.name, found, excerpts)
        return found


def _chat_of(form: Form | None) -> Chat | None:
    if isinstance(form, CountedForm):
        if form.kind != "chat/completions":
            return None
        return Chat(len(form.body), form.fields.messages, form.fields.tools)
    outline = None if form is None else form.measures.outline
    return None if outline is None else Chat.of_outline(len(outline.text), outline)
