"""ModelFinder: the model that a request names, whether it may have it, and which of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.overview import Overview
from trio_gateway.models.choosing import after, as_last_resort, suits
from trio_gateway.models.explanation import Question
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.models.medium import Medium
from trio_gateway.models.names import ContextNotFound, ModelNames, ModelNotFound, Named, Wanted
from trio_gateway.server.access.permissions import EVERYTHING, Permissions, model_not_allowed
from trio_gateway.server.api.context_errors import CODE as TOO_LONG
from trio_gateway.server.api.context_errors import ContextTooLong
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.errors import ApiError, model_not_found
from trio_gateway.server.api.model_choosers import chooser_among, chooser_refused
from trio_gateway.server.relay.ask import Ask
from trio_gateway.server.relay.choices import Choices, answers

_OF_SOUND = ("audio/transcriptions", "audio/translations")
# What one model cannot have, and another one of a choice perhaps can.
_PASSED_ON = frozenset({TOO_LONG, "media_not_supported", "field_not_allowed"})


class ModelFinder:
    """`choices`: which of several models a name means at the moment."""

    def __init__(
        self, names: ModelNames, overview: Overview, media: MediaSupport, choices: Choices
    ) -> None:
        self._names, self._overview, self._media = names, overview, media
        self.choices = choices

    def find(
        self,
        name: str | None,
        permissions: Permissions = EVERYTHING,
        endpoint: Endpoint | None = None,
    ) -> Wanted:
        """Of a choice the model that a request would get now. `endpoint`: what the request is for.

        Raises ApiError: 404 without such a model, 403 if its key may not use it."""
        wanted = self._names.plain(name)
        if wanted is not None and permissions.allows(wanted.model.name):
            return wanted
        try:
            named = self._names.find_named(name)
            if named.choice is not None:
                return self._ways(named, permissions, endpoint)[0]
            if not permissions.allows(named.model.name):
                raise model_not_allowed(permissions, named.model.name)
            return self._names.wanted(named)
        except ModelNotFound as error:
            if permissions.models is None:
                raise model_not_found(str(error)) from None
            message = "there is no such model; GET /v1/models lists those that your API key may use"
            raise model_not_found(message) from None
        except ContextNotFound as error:
            message = str(error) if permissions.models is None else "the model has no such context"
            raise ApiError(400, message, code="context_not_found", param="model") from None

    def choice_of(self, name: str | None, permissions: Permissions) -> ChoiceConfig | None:
        """What this names, if that is a choice. Raises ApiError: as `find`."""
        self.find(name, permissions)
        return self._names.find_named(name).choice

    def admitted(
        self, endpoint: Endpoint, name: str | None, permissions: Permissions = EVERYTHING
    ) -> Wanted:
        """The model of a request, before anything else in it is looked at.

        Raises:
            ApiError: as `find`, and 400, the model's engines have no such endpoint.
        """
        wanted = self.find(name, permissions, endpoint)
        self.check_served(endpoint, wanted.model)
        return wanted

    def ways(
        self,
        endpoint: Endpoint,
        name: str | None,
        permissions: Permissions,
        conversation: str | None = None,
    ) -> list[Wanted]:
        """All that a request may be tried with which names a choice, the first one first.
        `conversation`: what it is told by, if it goes on."""
        named = self._names.find_named(name)
        return self._ways(named, permissions, endpoint, conversation)

    def _ways(
        self,
        named: Named,
        permissions: Permissions,
        endpoint: Endpoint | None,
        conversation: str | None = None,
    ) -> list[Wanted]:
        """Raises ApiError: 403, the key may use none of them; ContextNotFound, ModelNotFound."""
        assert named.choice is not None
        usable = [
            member
            for member in self._names.members(named.choice)
            if permissions.allows(member.model.name)
        ]
        if not usable:
            raise model_not_allowed(permissions, named.choice.name)
        if endpoint is not None:
            can = [member for member in usable if self._can(endpoint, member.model)]
            usable = can or usable
        wanted = list[Wanted]()
        for member in usable:
            with suppress(ContextNotFound):  # another one may have it
                wanted.append(self._names.wanted_of(member, named.tokens))
        if not wanted:
            sizes = [max(self._overview.contexts_of(member.model.name)) for member in usable]
            size = "as its entry names" if named.tokens is None else f"of {named.tokens} tokens"
            what = f"no model of {named.choice.name} has a context {size}"
            raise ContextNotFound(f"{what}; the largest has {max(sizes)}")
        return self.choices.in_order(named.choice, wanted, conversation)

    def _can(self, endpoint: Endpoint, model: ModelConfig) -> bool:
        """Whether its engines are likely to answer such a request."""
        if endpoint.family is not Family.GATEWAY and not self.is_served(endpoint, model):
            return False
        if endpoint.name in _OF_SOUND and Medium.AUDIO in self._media.refusals(model):
            return False
        return answers(endpoint, model)

    async def first_that_holds(
        self,
        ways: Sequence[Wanted],
        prepare: Callable[[Wanted], Awaitable[Ask]],
        wish: int = 0,
    ) -> Ask:
        """Try them in their order. Where the first that *fits* is wanted, one whose answer would
        have to be shortened is no more than the last resort, the one with the largest context.
        `wish`: tokens that the context should have.

        Raises:
            ApiError: none of them can have it; as the largest says, if it is too long for all.
        """
        refused: ApiError | None = None
        last: tuple[int, Ask | ApiError] | None = None
        passed = list[str]()
        for wanted in ways:
            largest = max(self._overview.contexts_of(wanted.model.name))
            found: Ask | ApiError
            try:
                found = await prepare(after(wanted, passed))
                if suits(wanted, found.selection, is_large=largest >= wish):
                    return found
            except ContextTooLong as error:
                found = error
            except ApiError as error:
                if error.code not in _PASSED_ON:
                    raise
                refused = refused or error
                passed.append(wanted.model.name)
                continue
            passed.append(wanted.model.name)
            # Of two with the same context, the one that can have it at all.
            if last is None or (largest, isinstance(found, Ask)) > (
                last[0],
                isinstance(last[1], Ask),
            ):
                last = largest, found
        if last is not None and isinstance(ask := last[1], Ask):
            assert ask.chosen is not None
            return msgspec.structs.replace(ask, chosen=as_last_resort(ask.chosen))
        failed = last[1] if last is not None else refused
        assert isinstance(failed, ApiError)
        raise failed

    def all_that_can(self, ways: Sequence[Wanted], ask: Callable[[Wanted], Question]) -> Question:
        """As `first_that_holds`, of a request that is to be explained: with what would be asked
        next. Raises ApiError: none of them can have it."""
        found, refused = list[Question](), None
        for wanted in ways:
            try:
                found.append(ask(wanted))
            except ApiError as error:
                if error.code not in _PASSED_ON:
                    raise
                refused = refused or error
        if refused is not None and not found:
            raise refused
        return msgspec.structs.replace(found[0], others=tuple(found[1:]))

    def context_for(self, wanted: Wanted, wish: int) -> int:
        """Tokens that the context has at least: what the name asks for, or what is wished for, up
        to the model's largest."""
        if not wish:
            return wanted.at_least
        return max(wanted.at_least, min(wish, max(self._overview.contexts_of(wanted.model.name))))

    def is_served(self, endpoint: Endpoint, model: ModelConfig) -> bool:
        """Whether the model's engines have this endpoint."""
        return endpoint.name in self._overview.endpoints_of(model)

    def check_served(self, endpoint: Endpoint, model: ModelConfig) -> None:
        """Raises ApiError: 400, the model's engines have no such endpoint."""
        served = self._overview.endpoints_of(model)
        if endpoint.name not in served and endpoint.family is not Family.GATEWAY:
            message = (
                f"the engine of {model.name} ({model.engine.value}) does not serve "
                f"{endpoint.name}; it serves: {', '.join(sorted(served))}"
            )
            raise ApiError(400, message, code="endpoint_not_supported")


def refuse_choosers(model: ModelConfig, permissions: Permissions, values: dict[str, Any]) -> None:
    """Raises ApiError: 403, the key may not have what a field of the request could choose."""
    if may_choose(model, permissions) and (field := chooser_among(values)) is not None:
        raise chooser_refused(field, permissions.key)


def may_choose(model: ModelConfig, permissions: Permissions) -> bool:
    """Whether a request of this key could reach models there that the key may not use."""
    return permissions.models is not None and not model.engine.is_ours
