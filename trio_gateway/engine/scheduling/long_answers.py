"""LongAnswers: answers that end after `longest_answer`, while others wait for their place."""

from __future__ import annotations

import math

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.events import Action, EndAnswer
from trio_gateway.engine.scheduling.state import SchedulerState


class LongAnswers:
    """Others wait for an answer's place if they wait for a slot of its engine, or for its engine's
    room. Batch requests do not end an answer that is not one.

    `wanted`: engines whose room is waited for, and by which priority at most.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._is_used = any(
            facts.longest_answer_s < math.inf
            for variants in state.variants.all()
            for facts in variants
        )
        self.wanted: dict[int, Priority] = {}

    def note_wanted(self, engine: EngineView, priority: Priority) -> None:
        """Somebody waits for this engine to make way."""
        self.wanted[engine.id] = min(priority, self.wanted.get(engine.id, priority))

    def end(self, now: float, actions: list[Action]) -> float:
        """End those that are due; when the next one is, if things stay as they are."""
        next_due = math.inf
        if not self._is_used or not self._state.tickets:
            return next_due
        for engine in self._state.engines.values():
            limit_s = engine.facts.longest_answer_s
            if limit_s == math.inf:
                continue
            for ticket, lease in engine.leases.items():
                answer = lease.progress
                if (
                    answer is None
                    or answer.is_ended
                    or not self._is_waited_for(engine, lease.priority)
                ):
                    continue
                due = lease.granted_at + limit_s
                if due > now:
                    next_due = min(next_due, due)
                    continue
                answer.is_ended = True
                actions.append(EndAnswer(ticket, engine.id, now - lease.granted_at))
        return next_due

    def _is_waited_for(self, engine: EngineView, priority: Priority) -> bool:
        if self._state.is_wanted(engine, priority):
            return True
        by = self.wanted.get(engine.id)
        return by is not None and by <= priority
