"""OperationsHandler: what the gateway says about itself: health, queue, engines, explanations."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.explanation import Question, explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.aftermath import Aftermath
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.request_body import nested_too_deeply
from trio_gateway.server.budget import Budget
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import answer_of, json_answer
from trio_gateway.server.reading.explained import (
    ROWS,
    asked_to_explain,
    open_to_explain,
    row_of_call,
)
from trio_gateway.server.reading.readers import Readers, light_body
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.context_limit import question
from trio_gateway.server.relay.prepare import Preparer


class OperationsHandler:
    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        preparer: Preparer,
        budget: Budget,
        readers: Readers,
        aftermath: Aftermath,
    ) -> None:
        self._aftermath = aftermath
        self._readers = readers
        self._manager, self._selector = manager, selector
        self._counter, self._preparer, self._budget = counter, preparer, budget

    async def handle_health(self, endpoint: Endpoint, call: Call) -> Answer:
        return json_answer({"status": "ok"})

    async def handle_openapi(self, endpoint: Endpoint, call: Call) -> Answer:
        # Imported here: the schemas take 0.6 MB, and few ask for them.
        from trio_gateway.server.openapi.document import encoded

        return answer_of(encoded(), b"application/json")

    async def handle_queue(self, endpoint: Endpoint, call: Call) -> Answer:
        """Others than admins get the numbers alone: another gateway goes by them."""
        tickets, engines = self._manager.overview.tickets(), self._manager.overview.engines()
        load = {"waiting": len(tickets), "running": sum(row.leases for row in engines)}
        if not call.permissions.admin:
            return json_answer(load)
        return json_answer({"tickets": tickets, **load, "held": self._budget.facts()})

    async def handle_engines(self, endpoint: Endpoint, call: Call) -> Answer:
        engines, kv = self._manager.overview.engines(), self._manager.kv.totals()
        last_run = self._aftermath.last_run
        return json_answer({"engines": engines, "kv_carryover": kv, "last_run": last_run})

    async def handle_explain(self, endpoint: Endpoint, call: Call) -> Answer:
        """What would happen to the request in the body. No engine is started or asked to work."""
        pieces, named = await call.read_pieces(), call.query("endpoint")
        if (data := light_body(pieces)) is None:
            asked = await self._counted_large(call, pieces, named)
        else:
            opened = open_to_explain(named, data)
            asked = asked_to_explain(self._preparer, opened, call.permissions)
        try:
            found = await explain(
                self._selector, self._counter, self._manager.overview, self._manager.kv, asked
            )  # fmt: skip
        except RecursionError:
            raise nested_too_deeply() from None
        return json_answer(found)

    async def _counted_large(
        self, call: Call, pieces: Sequence[bytes], named: str | None
    ) -> Question:
        async with self._readers.opened(
            pieces, named, call.state.hold.client, by_content=True
        ) as opened:
            # Of a choice, the model that is asked first: each has to be read for by itself.
            wanted = self._preparer.find(opened.model, call.permissions)
            model, row = wanted.model, ROWS[opened.endpoint]
            family = row.family
            if family is not Family.OLLAMA:
                self._preparer.check_served(row, model)
            read, ollamas = await opened.read(model, model.name, model.largest_context)
        if ollamas is not None:
            row = row_of_call(ollamas)
            self._preparer.check_served(row, model)
            at_least = self._preparer.context_for(wanted, ollamas.num_ctx or 0)
            wanted = msgspec.structs.replace(wanted, at_least=at_least)
        assert read.form is not None
        return question(wanted, read.form, row, family, read.body)
