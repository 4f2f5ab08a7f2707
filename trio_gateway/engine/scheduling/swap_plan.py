"""Which engines make way for which start, and when: the plan that the scheduler carries out.

For each demand, in their order (`demands.py`), as many engines as needed are chosen to make way:
first those that drain already and would for this demand as well, pinned ones last; then those that
can go soonest, idle ones at once; then the outgrown engine of the same model; then those that are
cheapest to lose, which is what a load costs, less the longer the engine is idle. A demand never
takes room that an earlier one waits for.

A busy engine goes on to be granted until the demand has waited for `window_s`, counted from the
engine's own start if that is later. Then it takes no newcomers any more, and makes way as soon as
it has no leases. But first it serves what came before the demand, in *overtime*, until it has run
for twice as long as it and the demand take to load. So newcomers never hold back a demand longer
than the window, and loads do not take more than a third of the time while older tickets wait.

Without overtime a burst for one model is cut into windows, and waits longer than under first come,
first served; without its end, one client's hundred requests would hold back another's one.
`benchmarks/scheduler_trace.py` has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.engine.scheduling.demands import Demand
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import (
    VariantFacts,
)
from trio_gateway.engine.scheduling.giving_up import AT_ONCE, GivingUp
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.memory_events import (
    Places,
)
from trio_gateway.engine.scheduling.pool_memory import EVERYWHERE, Shortage, share_of
from trio_gateway.engine.scheduling.state import SchedulerState


class Step(msgspec.Struct, frozen=True):
    """What is to be done for one demand.

    `closes_at`: when the victims take no newcomers any more. `yields_at`: when they take nothing
    any more, and make way. `may_start`: there is room now. `places`: where its engine will be.
    """

    demand: Demand
    victims: tuple[EngineView, ...]
    closes_at: float
    yields_at: float
    may_start: bool
    places: Places = EVERYWHERE


class _Room:
    """A pool as far as the plan has come. `staying`: engines that no demand so far wants to go."""

    def __init__(self, engines: list[EngineView]) -> None:
        self.engines = engines
        self.staying = [e for e in engines if e.state is not EngineState.STOPPING]
        # Demands so far, none of which is an engine yet, and where each is to be.
        self.promised: list[tuple[Demand, Places]] = []
        self.full = False  # no later demand overtakes one that finds no room


class Planner:
    """Makes the plan of one moment from the engines as they are."""

    def __init__(self, state: SchedulerState, window_s: float, now: float) -> None:
        self._state, self._now = state, now
        self._giving_up = GivingUp(state, window_s, now)
        self._rooms: dict[str, _Room] = {}
        self.called_back: list[EngineView] = []  # engines whose drain the plan calls off
        self.short: dict[str, Shortage] = {}  # by model, what no engine could make way for
        self.to_look: set[str] = set()  # pools of which nothing recent is known

    def steps(self, demands: Sequence[Demand]) -> list[Step]:
        """A step for each demand that something can be done for, in the order of the demands."""
        return [step for demand in demands if (step := self._step(demand)) is not None]

    def _room(self, pool: str) -> _Room:
        if (room := self._rooms.get(pool)) is None:
            room = self._rooms[pool] = _Room([*self._state.index.in_pool(pool)])
        return room

    def _step(self, demand: Demand) -> Step | None:
        facts = demand.facts
        room = self._room(facts.pool)
        if room.full:
            return None
        if not room.staying and len(room.promised) >= self._state.pools[facts.pool].engines:
            room.full = True
            return None
        if (back := self._draining_for(demand, room)) is not None:
            room.staying.remove(back)  # not needed by another, so its drain is called off
            self.called_back.append(back)
            return None
        # Whoever comes first has the address, also while it waits for room: else a later start
        # would take it and be stopped for the earlier one, again and again.
        if facts.endpoint is not None and any(
            other.facts.endpoint == facts.endpoint
            for known in self._rooms.values()
            for other, _ in known.promised
        ):
            room.promised.append((demand, self._state.memory.placements(facts)[0]))
            return None
        is_fresh = self._state.memory.is_fresh(facts.pool, self._now)
        if not is_fresh:
            self.to_look.add(facts.pool)
        chosen = self._choose(demand, room)
        if chosen is None:
            # What others hold may take long to come free: those that have room need not wait.
            shortage = self._state.memory.shortage(facts)
            if shortage is None:
                room.full = True
            else:
                self.short[facts.key.model] = shortage
            return None
        victims, places = chosen
        may_start = not victims and is_fresh and self._has_room(demand, room, places)
        room.promised.append((demand, places))
        closes_at = yields_at = AT_ONCE
        for victim in victims:
            self._room(victim.facts.pool).staying.remove(victim)
            closes_at = max(closes_at, self._giving_up.closes_at(victim, demand))
            yields_at = max(yields_at, self._giving_up.yields_at(victim, demand))
        return Step(demand, victims, closes_at, yields_at, may_start, places)

    def _draining_for(self, demand: Demand, room: _Room) -> EngineView | None:
        """An engine that could serve the whole demand if its drain were called off."""
        for engine in room.staying:
            if (
                engine.state is EngineState.DRAINING
                and not engine.unloading
                and engine.id not in self._state.memory.making_way
                and engine.key.model == demand.facts.key.model
                and engine.context >= demand.size
            ):
                return engine
        return None

    # -- room --------------------------------------------------------------------------------

    def _choose(self, demand: Demand, room: _Room) -> tuple[tuple[EngineView, ...], Places] | None:
        """Engines that have to go for this demand, and where it is to be then; None: not even all
        of them would do. Of several devices, it is the one with most room of those where the least
        has to go."""
        placements = self._state.memory.placements(demand.facts)
        if len(placements) == 1:
            victims = self._victims(demand, room, placements[0])
            return None if victims is None else (victims, placements[0])
        found = [
            (self._cost(victims, demand), self._lack(demand, room, places), places, victims)
            for places in placements
            if (victims := self._victims(demand, room, places)) is not None
        ]
        if not found:
            return None
        *_, places, victims = min(found, key=lambda each: each[:3])
        return victims, places

    def _cost(self, victims: Sequence[EngineView], demand: Demand) -> tuple[object, ...]:
        """In the order of `GivingUp`, by the one that is given up last."""
        if not victims:
            return (0,)
        return 1, max(self._giving_up.order(victim, demand) for victim in victims), len(victims)

    def _lack(self, demand: Demand, room: _Room, places: Places) -> int:
        """The less, the more room there is now."""
        over = self._over(demand, room.staying, room, places)
        return max(over[place] for place, _ in places)

    def _victims(
        self, demand: Demand, room: _Room, places: Places
    ) -> tuple[EngineView, ...] | None:
        pool = self._state.pools[demand.facts.pool]
        victims = [
            e
            for e in self._holders(demand.facts)
            if e.state is not EngineState.STOPPING and e in self._room(e.facts.pool).staying
        ]
        here = [e for e in room.staying if e not in victims] if victims else room.staying
        engines_over = len(here) + len(room.promised) + 1 - pool.engines
        over = self._over(demand, here, room, places)
        if engines_over > len(here):
            return None
        if engines_over <= 0 and not _any_over(over):
            return tuple(victims)
        chosen: list[EngineView] = []
        order = (
            sorted(here, key=lambda e: self._giving_up.order(e, demand)) if len(here) > 1 else here
        )
        for engine in [*order]:
            if engines_over <= 0 and not _any_over(over):
                break
            held = self._held(engine, over)
            if engines_over <= 0 and not any(over[place] > 0 and held[place] for place in over):
                continue  # it is elsewhere
            chosen.append(engine)
            engines_over -= 1
            over = {place: over[place] - held[place] for place in over}
        if engines_over > 0 or _any_over(over):
            return None
        for engine in [*chosen]:  # a small one chosen first may be spared by a large one after it
            held = self._held(engine, over)
            if engines_over < 0 and all(over[place] + held[place] <= 0 for place in over):
                chosen.remove(engine)
                engines_over += 1
                over = {place: over[place] + held[place] for place in over}
        return (*victims, *chosen)

    def _held(self, engine: EngineView, over: Mapping[str, int]) -> dict[str, int]:
        memory = self._state.memory
        return {
            place: memory.reserved(engine.facts, place, share_of(engine.places, place))
            for place in over
        }

    def _holders(self, facts: VariantFacts) -> list[EngineView]:
        """The engines that have this variant's fixed address."""
        if facts.endpoint is None:
            return []
        return [e for e in self._state.engines.values() if e.facts.endpoint == facts.endpoint]

    def _has_room(self, demand: Demand, room: _Room, places: Places) -> bool:
        """Whether it can start now: what is on its way out still holds its place and memory."""
        pool = self._state.pools[demand.facts.pool]
        return (
            not self._holders(demand.facts)
            and len(room.engines) + len(room.promised) < pool.engines
            and not _any_over(self._over(demand, room.engines, room, places))
        )

    def _over(
        self, demand: Demand, here: Sequence[EngineView], room: _Room, places: Places
    ) -> dict[str, int]:
        """By place, bytes that these and the demand need beyond what there is. Only where the
        demand is to be: elsewhere it changes nothing."""
        held = [(engine.facts, engine.places) for engine in here]
        held += [(other.facts, at) for other, at in room.promised]
        over = self._state.memory.over(demand.facts.pool, [*held, (demand.facts, places)])
        return {place: n for place, n in over.items() if share_of(places, place)}


def _any_over(over: Mapping[str, int]) -> bool:
    return any(n > 0 for n in over.values())
