"""A choice among models as clients are told of it: as one model that can do what they can. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.scheduling.model_load import LoadState
from trio_gateway.models.capabilities import Capability
from trio_gateway.models.known_model import KnownModel

# A request for these goes to a model that has them; of the others nobody looks.
_PASSED_ON = frozenset(
    {Capability.VISION, Capability.AUDIO, Capability.EMBEDDINGS, Capability.RERANK}
)
_STATES = (LoadState.LOADED, LoadState.LOADING, LoadState.UNLOADED)


def members_of(
    choice: ChoiceConfig, config: GatewayConfig, allows: Callable[[str], bool]
) -> list[ModelConfig]:
    """In its order, those that are allowed."""
    by_name = {model.name: model for model in config.models}
    return [by_name[member.model] for member in choice.members if allows(member.model)]


def known_choice(choice: ChoiceConfig, members: Sequence[KnownModel]) -> KnownModel:
    """Its contexts and endpoints are those of all of them: a request goes to one that has them. If
    any of them is another gateway's, so is it, for other gateways.

    Raises:
        ValueError: there are no members.
    """
    if not members:
        raise ValueError("a choice without models")
    first, names = members[0], {member.model.name for member in members}
    known = [member.capabilities for member in members]
    found = [one for one in known if one is not None]
    return KnownModel(
        model=msgspec.structs.replace(
            first.model,
            name=choice.name,
            aliases=(),
            description=choice.description,
            hidden=choice.hidden,
            peer=next((m.model.peer for m in members if m.model.peer is not None), None),
        ),
        facts=first.facts,
        contexts=sorted({context for member in members for context in member.contexts}),
        load=min((member.load for member in members), key=lambda load: _STATES.index(load.state)),
        capabilities=_together(found) if len(found) == len(known) else None,
        likely=_together([member.likely for member in members]),
        choice=msgspec.structs.replace(
            choice, members=tuple(one for one in choice.members if one.model in names)
        ),
        served=frozenset[str]().union(*(member.served for member in members)),
    )


def _together(all_of: Sequence[frozenset[Capability]]) -> frozenset[Capability]:
    """What some of them can where that is looked at, and otherwise what all of those can that
    chat."""
    some = frozenset[Capability]().union(*all_of)
    chats = [one for one in all_of if Capability.COMPLETION in one] or [*all_of]
    return (some & _PASSED_ON) | frozenset.intersection(*chats)
