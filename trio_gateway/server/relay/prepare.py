"""Preparer: from a request to an Ask, which says all that the relay needs to get it answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from trio_gateway.config.keepalive import KeepaliveStyle, LoadingState
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.overview import Overview
from trio_gateway.models.explanation import Question
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.models.medium import Medium
from trio_gateway.models.model_selector import ContextLengthExceeded, ModelSelector
from trio_gateway.models.names import ModelNames, Wanted
from trio_gateway.models.need.measured_form import Form
from trio_gateway.models.recount import Recount
from trio_gateway.models.selection import Selection
from trio_gateway.rawjson import Members
from trio_gateway.server.access.permissions import EVERYTHING, Permissions
from trio_gateway.server.api.endpoint import Endpoint, Family, Need
from trio_gateway.server.api.endpoints import CHAT
from trio_gateway.server.api.large_body import LargeBody, LargeRequest
from trio_gateway.server.api.media import MediaPart, media_parts, refuse_media
from trio_gateway.server.api.model_choosers import chooser_refused
from trio_gateway.server.api.request_body import OpenRequest, ParsedRequest, nested_too_deeply
from trio_gateway.server.forms.form_upload import FormUpload
from trio_gateway.server.relay.ask import Ask, Sender
from trio_gateway.server.relay.cache_watch import CacheWatch
from trio_gateway.server.relay.choices import Choices, conversation_of
from trio_gateway.server.relay.context_limit import is_ceiling, question, too_long
from trio_gateway.server.relay.engine_answer import Outgrown
from trio_gateway.server.relay.model_finder import ModelFinder, may_choose, refuse_choosers
from trio_gateway.server.relay.wait import Wait

log = logging.getLogger(__name__)

_OF_SOUND = ("audio/transcriptions", "audio/translations")
_EMBEDDING = frozenset({Need.INPUT, Need.CONTENT, Need.RERANK})


class Preparer(ModelFinder):
    """Finds the model that a request names, checks that it may have it, and what it needs.

    Args:
        watch: notes where a conversation broke its cache.
        choices: which of several models a name means; None: there are no such names.
        reasons: streams say as thoughts what they wait for, which clients may send back.
    """

    def __init__(
        self,
        names: ModelNames,
        overview: Overview,
        selector: ModelSelector,
        *,
        media: MediaSupport | None = None,
        watch: CacheWatch | None = None,
        choices: Choices | None = None,
        reasons: bool = False,
    ) -> None:
        super().__init__(names, overview, media or MediaSupport(), choices or Choices((), overview))
        self._selector = selector
        self._watch = watch or CacheWatch()
        self._reasons = reasons

    async def prepare(
        self,
        sender: Sender,
        endpoint: Endpoint,
        opened: OpenRequest | ParsedRequest,
        *,
        wish: int = 0,
    ) -> Ask:
        """An Ask of a JSON request. Whether its model may be had is known before it is read.

        Args:
            wish: tokens that the context should have, if the model has that much.

        Raises:
            ApiError: with what is wrong with it.
        """
        asked = opened.model
        sender.state.record.asks(asked)
        wanted = self.admitted(endpoint, asked, sender.permissions)
        request = opened.read()
        if wanted.chosen is None:
            return await self._prepare(sender, endpoint, request, asked, wish, wanted)
        prepare = partial(self._prepare, sender, endpoint, request, asked, wish)
        return await self.prepare_chosen(
            sender, endpoint, asked, request.values, prepare, wish=wish
        )

    async def prepare_chosen(
        self,
        sender: Sender,
        endpoint: Endpoint,
        asked: str | None,
        values: Mapping[str, Any],
        prepare: Callable[[Wanted], Awaitable[Ask]],
        *,
        wish: int = 0,
    ) -> Ask:
        """For the first model of a choice that can have it. `values`: the request's fields, if they
        were decoded.

        Raises:
            ApiError: as the model says that has the largest context.
        """
        owner = sender.permissions.owner or sender.caller.client
        talk = conversation_of(sender.state.record, owner, values)
        home = talk.key if talk is not None and talk.goes_on else None
        ways = self.ways(endpoint, asked, sender.permissions, home)
        ask = await self.first_that_holds(ways, prepare, wish)
        assert ask.chosen is not None
        self.choices.note(ask.chosen, talk, ask.model.name)
        return ask

    async def _prepare(
        self,
        sender: Sender,
        endpoint: Endpoint,
        request: ParsedRequest,
        asked: str | None,
        wish: int,
        wanted: Wanted,
    ) -> Ask:
        model = wanted.model
        if sender.permissions.models is not None:
            refuse_choosers(model, sender.permissions, request.values)
        values, family = request.values, sender.state.family
        refuse = partial(self._refuse_media, model, endpoint, values, family)
        request = self._changed(request, model, sender.caller.keepalive)
        form = None if endpoint.need is Need.UNCOUNTED else request.counted(endpoint)
        if form is None or form.kind != CHAT.name:
            refuse()
        return await self._ask(
            sender, endpoint, wanted, asked, wish, form, wants_stream=request.wants_stream,
            body=request.data, members=request.members, refuse=refuse,
        )  # fmt: skip

    async def prepare_large(
        self,
        sender: Sender,
        endpoint: Endpoint,
        wanted: Wanted,
        asked: str | None,
        request: LargeRequest,
        *,
        wish: int = 0,
    ) -> Ask:
        """The same of one that was read elsewhere. `wanted`: what `admitted` gave for it.

        Raises:
            ApiError: 400, it is too long; 403, its key may not have what a field could choose.
        """
        sender.state.record.asks(asked)
        if may_choose(wanted.model, sender.permissions) and request.chooser is not None:
            raise chooser_refused(request.chooser, sender.permissions.key)
        return await self._ask(
            sender, endpoint, wanted, asked, wish, request.form,
            wants_stream=request.wants_stream, large=request.body,
        )  # fmt: skip

    async def _ask(
        self,
        sender: Sender,
        endpoint: Endpoint,
        wanted: Wanted,
        asked: str | None,
        wish: int,
        form: Form | None,
        *,
        wants_stream: bool,
        body: bytes = b"",
        members: Members | None = None,
        large: LargeBody | None = None,
        refuse: Callable[[], None] | None = None,
    ) -> Ask:
        """`form`: None, it is not counted. `refuse`: for a chat with media. Raises ApiError."""
        model, prompt, recount = wanted.model, None, None
        at_least = self.context_for(wanted, wish) if wish else wanted.at_least
        if form is None:
            selection = self._selector.select_any(model, endpoint.name, at_least)
        else:
            family = sender.state.family
            try:
                selection = await self._selector.select_variant(
                    model, form, at_least,
                    is_ceiling=is_ceiling(endpoint, family), refuse_media=refuse,
                )  # fmt: skip
            except ContextLengthExceeded as error:
                fields = large if large is not None else members or {}
                raise too_long(error.excess, endpoint, family, model, fields) from None
            except RecursionError:
                raise nested_too_deeply() from None
            recount = Recount(self._selector, selection, form, at_least)
            if endpoint.need not in _EMBEDDING:
                prompt = Prompt(form.kind, form.body, sender.permissions.owner)
        return Ask(
            sender, endpoint, model.name if asked is None else asked,
            "POST", endpoint.engine_path or endpoint.paths[0], body, members,
            wants_stream, selection, prompt, Wait(sender.permissions), form,
            large=large,
            cache_break=self._watch.note(sender.state.record, sender.permissions, model, form),
            recount=recount,
            select_anew=partial(self._anew, sender, endpoint, asked, wanted, form, wish),
            chosen=wanted.chosen,
        )  # fmt: skip

    async def _anew(
        self,
        sender: Sender,
        endpoint: Endpoint,
        name: str | None,
        wanted: Wanted,
        form: Form | None,
        wish: int,
    ) -> Selection:
        """For the contexts as they are by now, which its name may have asked for.

        Raises:
            ApiError: 400, there is no such context any more.
            ContextLengthExceeded
        """
        if wanted.chosen is None:
            wanted = self.find(name, sender.permissions)
        at_least = self.context_for(wanted, wish)
        if form is None:
            return self._selector.select_any(wanted.model, endpoint.name, at_least)
        return await self._selector.select_variant(
            wanted.model, form, at_least, is_ceiling=is_ceiling(endpoint, sender.state.family)
        )

    async def prepare_form(self, sender: Sender, endpoint: Endpoint, form: FormUpload) -> Ask:
        """An Ask of a multipart form, as soon as its model is known.

        Raises:
            ApiError: as `prepare`, and what is wrong with the upload.
        """
        name = await form.read_model()
        ask = self.prepare_any(
            sender, endpoint, name, endpoint.engine_path or endpoint.paths[0], method="POST"
        )
        if endpoint.name in _OF_SOUND:
            sound = [MediaPart(Medium.AUDIO, "file")]
            refuse_media(self._media.refusals(ask.model), sound, sender.state.family)
        if may_choose(ask.model, sender.permissions):
            form.refuse_choosers(partial(chooser_refused, key=sender.permissions.key))
        return msgspec.structs.replace(ask, asked=name, form=form)

    def prepare_any(
        self,
        sender: Sender,
        endpoint: Endpoint,
        model: str | None,
        target: str,
        *,
        method: str = "GET",
        body: bytes = b"",
    ) -> Ask:
        """An Ask that any engine of the model can answer; its answer's name is left alone.

        Raises:
            ApiError: as `prepare`.
        """
        sender.state.record.asks(model)
        wanted = self.admitted(endpoint, model, sender.permissions)
        selection = self._selector.select_any(wanted.model, endpoint.name, wanted.at_least)
        return Ask(
            sender, endpoint, "", method, target, body, None, False, selection, None,
            Wait(sender.permissions),
            select_anew=partial(self._anew, sender, endpoint, model, wanted, None, 0),
            chosen=wanted.chosen,
        )  # fmt: skip

    def for_larger(self, ask: Ask, outgrown: Outgrown) -> Ask | None:
        """The same for a larger context, after an engine said how many tokens its prompt has; None:
        the model has none that does not say the same.

        Raises:
            ApiError: 400, the larger one does not hold it either.
        """
        told, is_least = (outgrown.prompt_tokens, outgrown.refused), outgrown.is_least
        try:
            selection = self._selector.select_larger(ask.selection, *told, is_least=is_least)
        except ContextLengthExceeded as error:
            if outgrown.why:
                return None
            raise ask.too_long(error.excess) from None
        log.info("request %s: %s, moving up", ask.state.id, selection.reason)
        return msgspec.structs.replace(ask, selection=selection, recount=None)

    def counted(
        self,
        endpoint: Endpoint,
        opened: OpenRequest | ParsedRequest,
        family: Family,
        permissions: Permissions = EVERYTHING,
        *,
        wish: int = 0,
    ) -> Question:
        """A request as a dry run looks at it.

        Args:
            family: whose request it was, before it was translated.
            wish: tokens that the context should have, if the model has that much.

        Raises:
            ApiError: as `prepare`.
        """
        wanted = self.admitted(endpoint, opened.model, permissions)
        request = opened.read()

        def ask(wanted: Wanted) -> Question:
            self._refuse_media(wanted.model, endpoint, request.values, family)
            changed = self._changed(request, wanted.model)
            wished = msgspec.structs.replace(wanted, at_least=self.context_for(wanted, wish))
            form = changed.counted(endpoint)
            return question(wished, form, endpoint, family, changed.members, wish)

        if wanted.chosen is None:
            return ask(wanted)
        return self.all_that_can(self.ways(endpoint, opened.model, permissions), ask)

    def _changed(
        self, request: ParsedRequest, model: ModelConfig, style: KeepaliveStyle | None = None
    ) -> ParsedRequest:
        """As the configuration wants it, before it is counted."""
        reasons = self._reasons or LoadingState.REASONING is model.loading_state
        if reasons or style is KeepaliveStyle.REASONING:
            request = request.without_sentences()
        return request.configured(model)

    def _refuse_media(
        self, model: ModelConfig, endpoint: Endpoint, values: Mapping[str, Any], family: Family
    ) -> None:
        """Raises ApiError: 400, the model cannot be shown what a request has. To look for that
        takes 20 us in a chat of 180 parts, so of a chat it is first known how many."""
        if refusals := self._media.refusals(model):
            refuse_media(refusals, media_parts(values, endpoint), family)
