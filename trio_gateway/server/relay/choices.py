"""Choices: which of its models a choice means at the moment, and which an admin has pinned.

What is decided is in `models/choosing.py`. A reload makes another one, so that pins end with it;
which model knows a conversation (`Homes`) outlives that.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig, Strategy
from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import POOLING, RERANKING
from trio_gateway.engine.overview import Overview
from trio_gateway.engine.scheduling.variants import ModelGone
from trio_gateway.models.cache_breaks import Chat
from trio_gateway.models.choosing import Candidate, Standing, in_order
from trio_gateway.models.names import Chosen, ModelNames, Wanted
from trio_gateway.server.api.endpoint import Endpoint, Need
from trio_gateway.server.records.request_record import RequestRecord

log = logging.getLogger(__name__)

HOMES_MAX = 2048
_VECTORS = (Need.INPUT, Need.CONTENT)
_GENERATED = frozenset({Need.CHAT, Need.RESPONSES, Need.MESSAGES, Need.PROMPT, Need.INFILL})


class Conversation(NamedTuple):
    """`key`: tells it. `goes_on`: something was answered in it before."""

    key: str
    goes_on: bool


class Homes:
    """Which model has read a conversation so far, by choice; the latest of them."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, str], str] = OrderedDict()

    def of(self, choice: str, conversation: str) -> str | None:
        return self._models.get((choice, conversation))

    def note(self, choice: str, conversation: str, model: str) -> None:
        key = choice, conversation
        self._models[key] = model
        self._models.move_to_end(key)
        if len(self._models) > HOMES_MAX:
            self._models.popitem(last=False)


class ChoiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """`use`: the model that an admin has pinned. `next`: the one that a request would get now,
    where nothing is known of its size; `why`: that one."""

    name: str
    strategy: str
    models: tuple[str, ...]
    use: str | None
    next: str
    why: str
    requests: Mapping[str, int]


class Choices:
    """Of one configuration, which has these."""

    def __init__(
        self, choices: Sequence[ChoiceConfig], overview: Overview, homes: Homes | None = None
    ) -> None:
        self._choices = choices
        self._overview, self._homes = overview, homes or Homes()
        self._pins: dict[str, str] = {}  # by choice, a model's own name

    def keep_pins(self, before: Choices) -> None:
        """Those of an earlier configuration, where they still mean something."""
        members = {choice.name: {one.model for one in choice.members} for choice in self._choices}
        self._pins = {n: m for n, m in before._pins.items() if m in members.get(n, ())}

    def pin(self, choice: ChoiceConfig, model: str | None, by: str) -> None:
        """Only this model is to be used, until the configuration is read again; None: all are."""
        if model is None:
            self._pins.pop(choice.name, None)
        else:
            self._pins[choice.name] = model
        log.info("%s: %s is %s", by, choice.name, "free again" if model is None else model)

    def in_order(
        self, choice: ChoiceConfig, wanted: Sequence[Wanted], conversation: str | None = None
    ) -> list[Wanted]:
        """The first of these to be tried comes first."""
        home = None if conversation is None else self._homes.of(choice.name, conversation)
        turns = in_order(
            choice,
            [self._candidate(one.model.name) for one in wanted],
            home=home,
            pinned=self._pins.get(choice.name),
        )
        return [
            msgspec.structs.replace(wanted[place], chosen=Chosen(choice.name, choice.strategy, why))
            for place, why in turns
        ]

    def _candidate(self, model: str) -> Candidate:
        try:
            activity = self._overview.load_of(model).activity
        except ModelGone:  # a reload has taken it away since this request came
            return Candidate(model, Standing.FAILING)
        standing = Standing.RESTS
        if activity.runs:
            standing = Standing.RUNS
        elif activity.starts:
            standing = Standing.STARTS
        elif activity.fails:
            standing = Standing.FAILING
        return Candidate(model, standing, activity.requests, activity.places)

    def note(self, chosen: Chosen, conversation: Conversation | None, model: str) -> None:
        """A request of this conversation goes to this model."""
        if conversation is not None and chosen.strategy is Strategy.SPILL:
            self._homes.note(chosen.name, conversation.key, model)

    def all(self) -> Sequence[ChoiceConfig]:
        return self._choices

    def row(self, choice: ChoiceConfig, names: ModelNames) -> ChoiceRow:
        members = [Wanted(member.model) for member in names.members(choice)]
        first = self.in_order(choice, members)[0]
        return ChoiceRow(
            name=choice.name,
            strategy=choice.strategy.value,
            models=tuple(member.name for member in choice.members),
            use=self._pins.get(choice.name),
            next=first.model.name,
            why="" if first.chosen is None else first.chosen.why,
            requests={
                member.name: self._overview.load_of(member.model).activity.requests
                for member in choice.members
            },
        )


def conversation_of(
    record: RequestRecord, owner: str, values: Mapping[str, Any]
) -> Conversation | None:
    """What it is told by: its client's name for it, or how it begins. `values`: the request's
    fields; none where they were not decoded."""
    if record.conversation is not None:
        return Conversation(f"{owner}\0{record.conversation}", goes_on=True)
    messages = values.get("messages", values.get("input"))
    chat = Chat(0, messages)
    if not chat.beginning:
        return None
    return Conversation(f"{owner}\0{chat.beginning.hex()}", goes_on=not chat.is_first)


def answers(endpoint: Endpoint, model: ModelConfig) -> bool:
    """Whether the options of its engines are for such requests: a llama-server has vectors, ranks
    or chats. Where they are not known, it is for the engine to judge."""
    if not model.engine.has_server_options:
        return True
    args = model.variants[-1].engine_args
    ranks = args.is_on(RERANKING) or args.value(POOLING) == "rank"
    if endpoint.need is Need.RERANK:
        return ranks
    if endpoint.need in _VECTORS:
        return args.is_embedding and not ranks
    return not (endpoint.need in _GENERATED and args.is_embedding)
