"""What a waiting request is told: one sentence, the same wherever it stands. Pure.

    waits for 2 answers of qwen3 to end, then gemma loads (about 12 s); 3 requests are before it;
    expected in about 34 s

It says what is waited for, what comes after that, how many are before it, and when it is expected.
A time that is not known is left out. Who may not use a model does not learn its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.scheduling.waiting import Blocker, Cause, Scarce, Waiting
from trio_gateway.engine.scheduling.words import lack

MINUTES_FROM_S = 120.0

Knows = Callable[[str], bool]  # whether the reader may know a model of this name


def all_known(model: str) -> bool:
    return True


def sentence_of(waiting: Waiting, knows: Knows = all_known) -> str:
    """It begins in lower case and has no full stop: it may follow a request's name."""
    return _Teller(waiting, knows).sentence()


class _Teller:
    def __init__(self, waiting: Waiting, knows: Knows) -> None:
        self._w, self._knows = waiting, knows
        models = {blocker.key.model for blocker in waiting.blockers}
        self._says_variants = waiting.loads and waiting.key.model in models

    def sentence(self) -> str:
        w = self._w
        said = [self._said()]
        if w.before:
            said.append(f"{_count(w.before, 'request')} {_is(w.before)} before it")
        if w.expected_s is not None and w.cause is not Cause.NOTHING:
            said.append(f"expected in {_about(w.expected_s)}")
        return "; ".join(said)

    def _said(self) -> str:
        w, own = self._w, self._own()
        match w.cause:
            case Cause.NOTHING:
                return "is about to go on"
            case Cause.PLACE:
                return f"waits for a free place of {own}: {self._running()}"
            case Cause.TOKENS:
                return (
                    f"waits for {w.need} tokens of the context that the places of {own} share: "
                    f"{self._running()}"
                )
            case Cause.LOAD:
                return f"waits for {own} to load{_progress(w.loading_s, w.load_s)}"
            case Cause.WAKE:
                return f"waits for the machine of {own} to wake{_progress(w.loading_s, w.load_s)}"
            case Cause.COUNTER:
                loads = _progress(w.loading_s, w.load_s)
                return f"waits for {own} to load{loads}, which will count its tokens"
            case Cause.COUNT:
                return f"waits for {own} to count its tokens"
            case Cause.HELD if w.shortage is not None:
                return f"waits for memory: {lack(w.shortage, own)}"
            case Cause.PAUSE:
                return f"waits as {w.outlook.pause}; then it loads{_takes(w.load_s)}"
        return f"{self._in_the_way()}{self._purpose()}, then {own} loads{_takes(w.load_s)}"

    def _in_the_way(self) -> str:
        """Before a start."""
        w, names = self._w, self._names()
        running = sum(blocker.running for blocker in w.blockers)
        ends = f" and for {self._requests()} to end" if running else ""
        match w.cause:
            case Cause.ANSWERS:
                return f"waits for {self._requests()} of {names} to end"
            case Cause.STOP:
                return f"waits for {names} to stop"
            case Cause.OTHER_LOAD:
                loads = _progress(w.loading_s, w.other_load_s)
                return f"waits for {names} to load{loads} and have its turn"
            case Cause.OVERTIME:
                return f"waits for {names} to take what came before it{self._most()}{ends}"
            case Cause.BATCH:
                return (
                    f"waits, as a batch request, until no interactive request wants {names}"
                    f"{self._most()}{ends}"
                )
            case Cause.TURN if w.within_s is None:
                return f"waits for {names} to be idle{ends}"
            case Cause.TURN:
                turn = "turn" if len(w.blockers) == 1 else "turns"
                return f"waits for the {turn} of {names} to end{self._most()}{ends}"
        turn = "turn" if len(w.blockers) < 2 else "turns"
        return f"waits for the {turn} of {names} before it"

    def _purpose(self) -> str:
        """What has to become free, where that is not a place."""
        w = self._w
        match w.scarce:
            case Scarce.MEMORY:
                return ", for their memory" if len(w.blockers) > 1 else ", for its memory"
            case Scarce.ADDRESS:
                return ", for the address that both have"
        return ""

    def _most(self) -> str:
        return "" if self._w.within_s is None else f" (at most {_seconds(self._w.within_s)})"

    # -- names and numbers ----------------------------------------------------------------------

    def _own(self) -> str:
        return self._name(self._w.key)

    def _name(self, key: VariantKey) -> str:
        return str(key) if self._says_variants and key.variant else key.model

    def _names(self) -> str:
        shown = [b.key for b in self._w.blockers if self._knows(b.key.model)]
        names = [*dict.fromkeys(map(self._name, shown))]
        hidden = len(self._w.blockers) - len(shown)
        if hidden or not names:
            names.append("another model" if hidden < 2 else "other models")
        return _listed(names)

    def _requests(self) -> str:
        """How many of the blockers' own requests are running, in the word for them."""
        running = [blocker for blocker in self._w.blockers if blocker.running]
        return _count(sum(b.running for b in running), _noun(running))

    def _running(self) -> str:
        running = sum(blocker.running for blocker in self._w.blockers)
        return f"{self._requests()} {_is(running)} running"


def _noun(running: Sequence[Blocker]) -> str:
    return "answer" if all(blocker.are_answers for blocker in running) else "request"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _seconds(seconds: float) -> str:
    """Rounded up: who waits would rather be served early."""
    if seconds < MINUTES_FROM_S:
        return f"{math.ceil(seconds)} s"
    minutes, rest = divmod(math.ceil(seconds / 10) * 10, 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _about(seconds: float) -> str:
    return "less than 1 s" if seconds < 1 else f"about {_seconds(seconds)}"


def _takes(load_s: float | None) -> str:
    return "" if load_s is None else f" ({_about(load_s)})"


def _progress(loading_s: float | None, load_s: float | None) -> str:
    """How far a load has come."""
    if loading_s is None:
        return _takes(load_s)
    so_far = f"{loading_s:.0f} s"
    if load_s is None:
        return f" ({so_far} so far)"
    if loading_s > load_s:
        return f" ({so_far} so far, mostly {_about(load_s)})"
    return f" ({so_far} of {_about(load_s)})"
