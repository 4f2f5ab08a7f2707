"""Which of several models a request gets: the order in which they are asked. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig, Strategy
from trio_gateway.models.names import Chosen, Wanted
from trio_gateway.models.selection import Selection


class Standing(enum.IntEnum):
    """What of a model is in memory; the best comes first. `FAILING`: none of its variants may be
    started for the moment, as their last starts have failed."""

    RUNS = 0
    STARTS = 1
    RESTS = 2
    FAILING = 3


class Candidate(msgspec.Struct, frozen=True):
    """A model as it is at the moment. `requests`: those that run there or wait for it. `places`:
    how many its engine takes at a time."""

    model: str
    standing: Standing = Standing.RESTS
    requests: int = 0
    places: int = 1


class Turn(NamedTuple):
    """`place`: of the candidate. `why`: it comes before those that follow, as the end of a sentence
    about it."""

    place: int
    why: str


def in_order(
    choice: ChoiceConfig,
    candidates: Sequence[Candidate],
    *,
    home: str | None = None,
    pinned: str | None = None,
) -> list[Turn]:
    """The first of them gets the request, unless it cannot have it.

    Args:
        home: the model that has read the conversation so far; it matters to `spill`.
        pinned: an admin wants this one; if it is among them, no other is asked.
    """
    for place, candidate in enumerate(candidates):
        if candidate.model == pinned:
            return [Turn(place, "an admin has chosen it")]
    rank = _RANKS[choice.strategy]
    ranked = [
        (rank(choice, candidate, candidate.model == home), place)
        for place, candidate in enumerate(candidates)
    ]
    return [Turn(place, why) for (_, why), place in sorted(ranked, key=lambda r: (r[0][0], r[1]))]


_Rank = tuple[tuple[float, ...], str]


def _by_engines(choice: ChoiceConfig, candidate: Candidate, is_home: bool) -> _Rank:
    return (float(candidate.standing),), _STANDINGS[candidate.standing]


_STANDINGS = {
    Standing.RUNS: "its engine runs",
    Standing.STARTS: "its engine starts",
    Standing.RESTS: "none of their engines runs, and it comes first",
    Standing.FAILING: "its last start has failed, as those of all others have",
}


def _by_requests(choice: ChoiceConfig, candidate: Candidate, is_home: bool) -> _Rank:
    """A model that has enough to do comes after one that has not; among the latter, the one that
    knows the conversation first; among the former, the one with the least to do."""
    enough = choice.spill_after or max(candidate.places, 1)
    has = f"it has {candidate.requests} of {enough} requests"
    if candidate.standing is Standing.FAILING:
        return (2.0, 0.0), _STANDINGS[Standing.FAILING]
    if candidate.requests >= enough:
        return (1.0, candidate.requests / enough, not is_home), f"{has}, and the others no fewer"
    if is_home:
        return (0.0, 0.0), f"it has read this conversation, and {has}"
    return (0.0, 1.0), has


def _by_size(choice: ChoiceConfig, candidate: Candidate, is_home: bool) -> _Rank:
    return (float(candidate.standing is Standing.FAILING),), "it is the first that holds the need"


_RANKS: dict[Strategy, Callable[[ChoiceConfig, Candidate, bool], _Rank]] = {
    Strategy.LOADED: _by_engines,
    Strategy.SPILL: _by_requests,
    Strategy.FITS: _by_size,
}


def suits(wanted: Wanted, selection: Selection, *, is_large: bool) -> bool:
    """Whether a model is taken that would do this with the request: where the first one that fits
    is wanted, it must not have to shorten the answer, and leave no doubt. `is_large`: it has the
    context that the client would like."""
    chosen = wanted.chosen
    if chosen is None or chosen.strategy is not Strategy.FITS:
        return True
    return is_large and selection.clamped is None and not selection.may_exceed


def as_last_resort(chosen: Chosen) -> Chosen:
    """One that is taken although it does not suit."""
    why = "none holds all that it asks for, and this one has the largest context"
    return msgspec.structs.replace(chosen, why=why)


def after(wanted: Wanted, passed: Sequence[str]) -> Wanted:
    """One that is asked because these models could not have the request, or not all of it."""
    chosen = wanted.chosen
    if not passed or chosen is None:
        return wanted
    why = f"{chosen.why}, and {' and '.join(passed)} cannot have it"
    return msgspec.structs.replace(wanted, chosen=msgspec.structs.replace(chosen, why=why))
