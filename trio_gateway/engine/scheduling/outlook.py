"""What a waiting ticket may expect: its place in the line, and how long it will wait. Pure.

What is ahead of it is added up: what runs, by its limit and its speed (`forecast.py`); loads, by
what they took; the turns of other models; the tickets before it, in the slots that there are. All
of it counts down as time passes. Where one of these is not known, and the wait depends on it, the
wait is not known either: that is said, rather than a number that is wrong.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Sequence

import msgspec

from trio_gateway.engine.scheduling.demands import Choice, PauseLeft, pause_left, start_for
from trio_gateway.engine.scheduling.engine_view import EngineView, HeldLease
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue

UNKNOWN = math.inf  # while waits are added up


class Outlook(msgspec.Struct, frozen=True):
    """`position`: 1 is the next. `wait_s` None: not known. `loading_s` and `load_s`: how long its
    engine has been loading, and how long that takes; None where nothing is loading for it, or that
    is not known. `pause`: what its engine is left alone for; `wait_s` includes it."""

    position: int
    wait_s: float | None
    loading_s: float | None = None
    load_s: float | None = None
    pause: PauseLeft | None = None


def outlook_of(ticket: Ticket, state: SchedulerState, window_s: float, now: float) -> Outlook:
    """For a ticket that waits, or one that would join the line now."""
    return Outlooks(state, window_s, now).of(ticket)


class _Line(msgspec.Struct, frozen=True):
    """Of one model: how many have their turn before each ticket, and what each will take."""

    places: dict[int, int]
    takes_s: list[float]


class _Turn(msgspec.Struct, frozen=True):
    """Of one model. `left_s`: what it takes at least. `open_since`: newcomers are taken until the
    window is over, and it began no earlier; they wait with `queue_s` of work, `longest_s` each at
    most. None: there are none to come. `is_running`: an engine of it is ready."""

    left_s: float
    open_since: float | None = None
    queue_s: float = 0.0
    longest_s: float = 0.0
    is_running: bool = True


_FIRST = (-1, -1)  # ahead of all tickets


class Outlooks:
    """What tickets may expect at one moment. What several of them wait for is added up once."""

    def __init__(self, state: SchedulerState, window_s: float, now: float) -> None:
        self._state, self._window_s, self._now = state, window_s, now
        self._lines: dict[str, _Line] = {}
        self._starts: dict[tuple[str, int | None, int], Sequence[float]] = {}
        self._choices: dict[tuple[str, int, int], Choice] = {}
        self._rivals: dict[str, list[tuple[str, tuple[int, int]]]] = {}  # by pool
        self._turns: dict[str, _Turn] = {}

    def of(self, ticket: Ticket) -> Outlook:
        state, now = self._state, self._now
        if state.engine_with_slot_for(ticket, ticket.size) is not None:
            return Outlook(1, 0.0)
        line = self._line(ticket.model)
        ahead = line.places.get(ticket.id, len(line.takes_s))
        engine = state.server_of(ticket)
        if engine is None:
            return self._before_a_start(ticket, ahead)
        slots = state.variants.slots_of(engine.facts, ticket.need)
        if engine.state is EngineState.STARTING:
            load_s, loading_s = state.forecast.known_start_s(engine), now - engine.started_at
            left_s = UNKNOWN if load_s is None or load_s < loading_s else load_s - loading_s
            wait_s = left_s + self._starts_s(ticket.model, None, slots)[ahead]
            return Outlook(ahead + 1, _known(wait_s), loading_s, load_s)
        return Outlook(ahead + 1, _known(self._starts_s(ticket.model, engine, slots)[ahead]))

    def start_for(self, ticket: Ticket) -> Choice:
        """What is to be started for a ticket that no engine serves."""
        kind = ticket.model, ticket.size, ticket.start_size
        if (choice := self._choices.get(kind)) is None:
            queue = self._state.queues.get(ticket.model, TicketQueue())
            choice = self._choices[kind] = start_for(ticket, queue, self._state, self._now)
        return choice

    def _before_a_start(self, ticket: Ticket, ahead: int) -> Outlook:
        state, choice = self._state, self.start_for(ticket)
        facts, pause = choice.facts, pause_left(choice, self._now)
        others = self._models_ahead(ticket, facts.pool)
        # What runs, runs side by side.
        running = [model for model in others if self._turn(model).is_running]
        turns_s = max((self._turn_s(model, ticket) for model in running), default=0.0)
        turns_s += sum(self._turn_s(model, ticket) for model in others if model not in running)
        # Others go on in a pause, so the two do not add up.
        # They begin once what runs of this model has made way.
        turns_s += self._making_way_s(ticket, facts.pool)
        wait_s = max(turns_s, pause.seconds if pause is not None else 0.0)
        wait_s += _or_unknown(state.forecast.known_load_s(facts))
        slots = state.variants.slots_of(facts, ticket.need)
        wait_s += self._starts_s(ticket.model, None, slots)[ahead]
        ahead += sum(self._ahead_of(model, ticket) for model in others)
        return Outlook(ahead + 1, _known(wait_s), pause=pause)

    def _making_way_s(self, ticket: Ticket, pool: str) -> float:
        """What the answers still take of the ticket's own model that are in its way: those of an
        engine that drains, or is too small for it and has the last place of the pool."""
        state = self._state
        in_pool = len(state.index.in_pool(pool))
        is_full = in_pool >= state.pools[pool].engines
        return max(
            (
                self._left_s(engine, lease)
                for engine in state.engines_of(ticket.model)
                if engine.state is EngineState.DRAINING or is_full
                for lease in engine.leases.values()
            ),
            default=0.0,
        )

    # -- the line of a model ------------------------------------------------------------------

    def _line(self, model: str) -> _Line:
        if (line := self._lines.get(model)) is None:
            tickets = self._state.queues.get(model, TicketQueue()).in_turn()
            places = {ticket.id: place for place, ticket in enumerate(tickets)}
            line = _Line(places, [self._takes_s(ticket) for ticket in tickets])
            self._lines[model] = line
        return line

    def _takes_s(self, ticket: Ticket) -> float:
        forecast = self._state.forecast
        if ticket.read_bytes is not None:
            return _or_unknown(forecast.reading_s(ticket.model, ticket.read_bytes))
        if ticket.progress is not None:
            speed = self._speed(ticket.model)
            return _or_unknown(forecast.answer_s(ticket.model, ticket.progress, ticket.size, speed))
        return _or_unknown(forecast.lease_s(ticket.model))

    def _speed(self, model: str) -> float | None:
        """Tokens a second of its running answers, where none is over yet."""
        leases = [e.leases.values() for e in self._state.engines_of(model)]
        running = [lease.progress for held in leases for lease in held if lease.progress]
        return next(filter(None, (answer.speed(self._now) for answer in running)), None)

    def _starts_s(self, model: str, engine: EngineView | None, slots: int) -> Sequence[float]:
        """When each of the line has its turn, and then a newcomer. `engine`: one that serves
        others until then; None: all its slots are free."""
        key = model, engine.id if engine is not None else None, slots
        if (starts := self._starts.get(key)) is None:
            free = [0.0] * slots if engine is None else self._free_at(engine, slots)
            starts = self._starts[key] = _starts(free, self._line(model).takes_s)
        return starts

    def _free_at(self, engine: EngineView, slots: int) -> list[float]:
        """In how many seconds each of its slots is free."""
        lefts = sorted(self._left_s(engine, lease) for lease in engine.leases.values())
        lefts = lefts[max(len(lefts) - slots, 0) :] or [0.0]
        # What waits though there are slots waits for tokens, and so for the next lease to end.
        return [*lefts, *lefts[:1] * (slots - len(lefts))]

    def _left_s(self, engine: EngineView, lease: HeldLease) -> float:
        """What a lease still takes."""
        forecast, model, now = self._state.forecast, engine.key.model, self._now
        if lease.progress is not None:
            return _or_unknown(
                forecast.answer_left_s(model, lease.progress, engine.context, lease.granted_at, now)
            )
        whole_s = forecast.lease_s(model)
        if lease.read_bytes is not None:
            whole_s = forecast.reading_s(model, lease.read_bytes)
        left_s = _or_unknown(whole_s) - (now - lease.granted_at)
        return left_s if left_s > 0 else UNKNOWN

    # -- other models' turns ------------------------------------------------------------------

    def _models_ahead(self, ticket: Ticket, pool: str) -> list[str]:
        """Other models of the pool that have a turn before this ticket: those whose engines are
        busy, and those that are in line before it with the same or a higher priority, unless they
        wait for the end of a pause."""
        if (rivals := self._rivals.get(pool)) is None:
            rivals = self._rivals[pool] = self._rivals_in(pool)
        own = self._in_line(ticket)
        return [model for model, place in rivals if place < own and model != ticket.model]

    def _ahead_of(self, model: str, ticket: Ticket) -> int:
        """How many wait for a model that has a turn before the ticket, and have theirs in it."""
        queue = self._state.queues.get(model)
        if queue is None or (oldest := queue.oldest()) is None:
            return 0
        is_served = any(e.serving for e in self._state.engines_of(model))
        return len(queue) if is_served or self._in_line(oldest) < self._in_line(ticket) else 0

    def _in_line(self, ticket: Ticket) -> tuple[int, int]:
        """Before whom it is: a model that had its turn is at the end of the line, however old its
        tickets are. One that is in no line yet comes after all."""
        place = self._state.in_line(ticket)[1] if ticket.place else sys.maxsize
        return ticket.priority, place

    def _rivals_in(self, pool: str) -> list[tuple[str, tuple[int, int]]]:
        """Models of the pool, by name, and whom they are ahead of: whoever comes after that."""
        state = self._state
        found: dict[str, tuple[int, int]] = {
            model: self._in_line(oldest)
            for model, queue in state.queues.items()
            if state.variants[model][0].pool == pool
            and (oldest := queue.oldest()) is not None
            and not self._is_paused(oldest)
        }
        for engine in state.index.in_pool(pool):
            if engine.leases or engine.state is EngineState.STARTING:
                found[engine.key.model] = _FIRST
        return sorted(found.items())

    def _is_paused(self, ticket: Ticket) -> bool:
        if self._state.server_of(ticket) is not None:
            return False
        return self.start_for(ticket).pause is not None

    def _turn_s(self, model: str, ticket: Ticket) -> float:
        """What is left of another model's turn, or what it will take: as long as its tickets take,
        but newcomers are taken for the window only."""
        turn = self._turn(model)
        if turn.open_since is None:
            return turn.left_s
        left_s = max(max(ticket.arrived_at, turn.open_since) + self._window_s - self._now, 0.0)
        return max(turn.left_s, min(left_s, turn.left_s + turn.queue_s) + turn.longest_s)

    def _turn(self, model: str) -> _Turn:
        if (turn := self._turns.get(model)) is None:
            turn = self._turns[model] = self._find_turn(model)
        return turn

    def _find_turn(self, model: str) -> _Turn:
        state, now = self._state, self._now
        takes_s = self._line(model).takes_s
        longest_s = max(takes_s, default=0.0)
        engines = state.engines_of(model)
        running = [e for e in engines if e.ready_at is not None]
        if not running:
            facts = state.variants[model][0]
            slots = state.variants.slots_of(facts, 1)
            queue_s = max(
                (s + t for s, t in zip(_starts([0.0] * slots, takes_s), takes_s, strict=False)),
                default=0.0,
            )
            load_s = _or_unknown(state.forecast.known_load_s(facts))
            if engines and load_s < UNKNOWN:
                load_s -= now - min(e.started_at for e in engines)
                load_s = load_s if load_s > 0 else UNKNOWN
            return _Turn(load_s + min(queue_s, self._window_s + longest_s), is_running=False)
        lefts = [self._left_s(e, lease) for e in running for lease in e.leases.values()]
        runs_s = max(lefts, default=0.0)
        if not takes_s or not any(e.serving for e in running):
            return _Turn(runs_s)  # nothing else is to come
        open_since = max(e.ready_at or 0.0 for e in running)
        return _Turn(runs_s, open_since, sum(takes_s), longest_s)


def _starts(free: Sequence[float], takes_s: Sequence[float]) -> Sequence[float]:
    """When each starts of a line that as many slots serve, free at these times; and one more."""
    slots = [*free]
    heapq.heapify(slots)
    starts = []
    for took_s in takes_s:
        starts.append(slots[0])
        heapq.heapreplace(slots, slots[0] + took_s)
    return [*starts, slots[0]]


def _or_unknown(seconds: float | None) -> float:
    return UNKNOWN if seconds is None else seconds


def _known(seconds: float) -> float | None:
    return None if seconds == UNKNOWN else seconds
