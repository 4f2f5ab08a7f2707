"""Recount: a request that is counted again once an engine of its model can tell."""

from __future__ import annotations

import msgspec

from trio_gateway.engine.lease import Needs
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.models.need.measured_form import Form
from trio_gateway.models.selection import Selection


class Recount(msgspec.Struct, eq=False):
    """`selection`: the newest of the request, by the last count."""

    selector: ModelSelector
    selection: Selection
    form: Form
    at_least: int

    async def __call__(self) -> Needs | None:
        """By the engine that runs; None: it cannot say.

        Raises:
            ContextLengthExceeded: no variant is large enough.
        """
        counted = await self.selector.select_again(self.selection, self.form, self.at_least)
        if counted is None:
            self.selection = msgspec.structs.replace(
                self.selection, least_need=None, is_provisional=False
            )
            return None
        self.selection = counted
        return Needs(counted.need, counted.start_need)
