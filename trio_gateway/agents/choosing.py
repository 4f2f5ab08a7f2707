"""Which of the gateway's models an agent is started with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.agents.settings import Agent

# Beside the first prompt: a message, an answer, and some room before the first summary.
TO_WORK_IN = 4096


class Candidate(msgspec.Struct, frozen=True):
    """One of `/v1/models`. `context`: tokens of its largest variant."""

    name: str
    context: int
    chats: bool
    takes_tools: bool
    is_loaded: bool
    aliases: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """`why`: in words. `doubts`: what will not work well."""

    model: Candidate
    why: str
    doubts: tuple[str, ...] = ()


class NoChoice(Exception):
    """No model will do; the message says why, and what to do."""


def choose(agent: Agent, models: Sequence[Candidate], wanted: str | None) -> Choice:
    """
    Args:
        wanted: the user's word; None: the best there is.

    Raises:
        NoChoice
    """
    if wanted is not None:
        return _of_name(agent, models, wanted)
    talkers = [model for model in models if model.chats]
    if not talkers:
        raise NoChoice("the gateway has no model that chats")
    fitting = [model for model in talkers if model.context >= _needed(agent)]
    if not fitting:
        largest = max(talkers, key=lambda model: model.context)
        raise NoChoice(
            f"no model is large enough: {_first_prompt(agent)}, and with {TO_WORK_IN:,} to work in "
            f"that makes {_needed(agent):,}. The largest, {largest.name}, has {largest.context:,}. "
            f"Give a model a variant with a larger context, or try it all the same: "
            f"trio-gateway launch {agent.name} {largest.name}"
        )
    best = max(
        fitting, key=lambda m: (m.takes_tools or not agent.uses_tools, m.is_loaded, m.context)
    )
    reasons = [f"it has {best.context:,} tokens, and {_first_prompt(agent)}"]
    if best.takes_tools and agent.uses_tools:
        reasons.append("it takes tools")
    if best.is_loaded:
        reasons.append("it is loaded")
    return Choice(best, "; ".join(reasons), _doubts(agent, best))


def _of_name(agent: Agent, models: Sequence[Candidate], wanted: str) -> Choice:
    found = [model for model in models if wanted == model.name or wanted in model.aliases]
    if not found:
        # `MODEL@32768` and the like: the gateway knows what they mean.
        base = wanted.partition("@")[0]
        found = [model for model in models if base == model.name or base in model.aliases]
    if not found:
        names = ", ".join(model.name for model in models if model.chats) or "none"
        raise NoChoice(f"the gateway has no model {wanted}; those that chat: {names}")
    model = msgspec.structs.replace(found[0], name=wanted)
    return Choice(model, "as you asked", _doubts(agent, model))


def _doubts(agent: Agent, model: Candidate) -> tuple[str, ...]:
    doubts = []
    if not model.chats:
        doubts.append("it does not seem to chat")
    elif model.context < _needed(agent):
        doubts.append(f"it has only {model.context:,} tokens, and {_first_prompt(agent)}")
    if model.chats and agent.uses_tools and not model.takes_tools:
        doubts.append("it is not known to take tools, without which nothing can be edited or run")
    return tuple(doubts)


def _needed(agent: Agent) -> int:
    return agent.first_prompt + TO_WORK_IN


def _first_prompt(agent: Agent) -> str:
    return f"{agent.title}'s first prompt has about {agent.first_prompt:,}"
