"""Selection: what a request needs, and who should serve it. Pure."""

from __future__ import annotations

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.need.excess import Excess, Known, between, excess_of


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers are tokens.

    `prompt`: as counted or bounded by `source`; not `is_exact`: it may be fewer. `answer`: the
    maximum that applies; None: none was named. `clamps`: it is lowered where it does not
    fit; `clamped`: what the request asked for, where that was done. `start_need`: what an engine
    should hold that is started for it. `context`: that of the smallest
    variant that holds the need, or of the running engine that serves it.
    `reason`: why this one. `is_plain`: the answer's `usage` can be compared with `prompt`, of which
    `correction` was added.

    `least_need`: what a count by an engine may make of the need; None: it is exact, or as good as
    it gets. `is_provisional`: such a count may also change what the answer gets, or show that it is
    too long, so one is due before the request is sent. `may_exceed`: nobody could tell whether the
    largest context holds it.
    """

    model: ModelConfig
    endpoint: str
    prompt: int
    source: CountSource
    is_exact: bool = False
    answer: int | None
    need: int
    start_need: int
    context: int
    reason: str
    clamps: bool = False
    clamped: int | None = None
    turn_bytes: int | None = None
    is_plain: bool = False
    correction: int = 0
    least_need: int | None = None
    is_provisional: bool = False
    may_exceed: bool = False

    @property
    def asked(self) -> int | None:
        """The answer's maximum as the client sent it."""
        return self.answer if self.clamped is None else self.clamped

    def excess(
        self, context: int, prompt: int | None = None, why: str = "", *, is_least: bool = False
    ) -> Excess:
        """What is said if no more than this context is to be had. `prompt`: its tokens, if an
        engine has told them, and whether that `is_least`; `why`: what else it has told."""
        known = Known.EXACTLY
        if prompt is None:
            prompt = self.prompt
            known = Known.AT_MOST if self.source is CountSource.BOUND else known
        elif is_least:
            prompt, known = between(prompt, self.prompt, context, self.asked)
        return excess_of(
            self.model, context, prompt, self.asked, clamps=self.clamps, known=known, why=why
        )
