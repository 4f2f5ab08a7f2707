"""ChoicesHandler: `/gateway/choices`, the names that mean one of several models, and their pins."""

from __future__ import annotations

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.models.names import ModelNames, ModelNotFound
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError, model_not_found
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.choices import Choices

_BODY_MAX_BYTES = 4096


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    use: str | None


class ChoicesHandler:
    def __init__(self, choices: Choices, names: ModelNames) -> None:
        self._choices, self._names = choices, names

    async def handle_choices(self, endpoint: Endpoint, call: Call) -> Answer:
        rows = [self._choices.row(choice, self._names) for choice in self._choices.all()]
        return json_answer({"choices": rows})

    async def handle_choose(self, endpoint: Endpoint, call: Call) -> Answer:
        """Pin one of its models until the next reload, or none."""
        choice = self._find(call.values["model"])
        wanted = _wanted(b"".join(await call.read_pieces()))
        model = None if wanted.use is None else self._member(choice, wanted.use)
        key = call.permissions.key
        self._choices.pin(choice, model, f'the API key "{key}"' if key else "somebody")
        return json_answer(self._choices.row(choice, self._names))

    def _find(self, name: str) -> ChoiceConfig:
        """Raises ApiError: 404, there is no such choice."""
        try:
            named = self._names.find_named(name)
        except ModelNotFound:
            named = None
        if named is not None and named.choice is not None and named.tokens is None:
            return named.choice
        known = ", ".join(choice.name for choice in self._choices.all())
        there_are = f"there are: {known}" if known else "the configuration has none (`choices`)"
        raise ApiError(
            404, f'there is no choice "{name[:200]}"; {there_are}', code="choice_not_found"
        )

    def _member(self, choice: ChoiceConfig, name: str) -> str:
        """The own name of one of its models. Raises ApiError: 404, 400."""
        for member in choice.members:
            if name == member.name:
                return member.model
        try:
            named = self._names.find_named(name)
        except ModelNotFound as error:
            raise model_not_found(str(error)) from None
        members = {member.model for member in choice.members}
        if named.choice is not None or named.model.name not in members:
            listed = ", ".join(member.name for member in choice.members)
            message = f"{choice.name} has no {name[:200]}; it has: {listed}"
            raise ApiError(400, message, code="invalid_parameter", param="use")
        return named.model.name


def _wanted(body: bytes) -> _Wanted:
    """Raises ApiError: 400, 413."""
    if len(body) > _BODY_MAX_BYTES:
        raise ApiError(413, "the body is too large for this", code="body_too_large")
    try:
        return msgspec.json.decode(body, type=_Wanted)
    except (msgspec.DecodeError, RecursionError) as error:
        message = f'expected {{"use": "MODEL"}}, or {{"use": null}} for any of them: {error}'
        raise ApiError(400, message, code="invalid_json") from None
