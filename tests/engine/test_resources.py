"""Pools and models as pages get them."""

from __future__ import annotations

from tests.support.scheduler_tables import (
    GB,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from tests.support.schema_values import model
from tests.support.schema_values import variant as configured
from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.resources import PoolRow, VariantRow, model_row, pool_rows
from trio_gateway.engine.scheduling.events import EngineFailed, EngineMeasured, VariantFacts
from trio_gateway.engine.scheduling.scheduler import Scheduler


def the_pool(subject: Scheduler) -> PoolRow:
    return pool_rows(subject.state)[0]


def the_variant(subject: Scheduler) -> VariantRow:
    return model_row(subject.state, model("a", only()), carryover=True).variants[0]


def only() -> VariantConfig:
    return configured(1000, name="only")


def unknown() -> VariantFacts:
    return VariantFacts(key=variant("a").key, pool="primary", context=1000, load_time_known=False)


def test_a_pool_without_engines() -> None:
    subject = scheduler(variant("a"), memory_bytes=5 * GB)
    assert the_pool(subject) == PoolRow("primary", 1, 5 * GB, 0, 0)


def test_what_is_reserved_and_what_was_measured() -> None:
    facts = variant("a", declared=4 * GB), variant("b", estimated=1 * GB)
    subject = scheduler(*facts, memory_bytes=8 * GB, primary=2)
    play(subject, loaded("ab"))
    subject.handle(EngineMeasured(1, 3 * GB), 1)
    assert the_pool(subject) == PoolRow("primary", 2, 8 * GB, 5 * GB, 3 * GB)


def test_an_engine_of_which_nothing_is_known_has_the_pool_for_itself() -> None:
    subject = scheduler(variant("a"), memory_bytes=8 * GB)
    play(subject, loaded("a"))
    assert the_pool(subject).used_bytes == 8 * GB


def test_of_a_pool_without_a_limit_what_is_known_is_used() -> None:
    subject = scheduler(variant("a"), variant("b", declared=GB), primary=2)
    play(subject, loaded("ab"))
    assert the_pool(subject).used_bytes == GB


def test_where_the_numbers_of_a_variant_are_from() -> None:
    subject = scheduler(unknown())
    assert the_variant(subject) == VariantRow("only", 1000, None, None, None, None, None)
    subject.handle(arrive(1, "a"), 0)
    subject.handle(ready(1, slots=3, context=900), 4)
    subject.handle(EngineMeasured(1, GB), 5)
    assert the_variant(subject) == VariantRow("only", 900, 3, GB, "measured", 4.0, "measured")


def test_what_was_declared_and_what_was_estimated() -> None:
    declared = the_variant(scheduler(variant("a", declared=GB, parallel=2)))
    assert declared == VariantRow("only", 1000, 2, GB, "declared", 10.0, "declared")
    assert the_variant(scheduler(variant("a", estimated=GB))).memory_is == "estimated"


def test_the_state_of_a_model_in_a_word() -> None:
    subject = scheduler(variant("a"))

    def state() -> str:
        return model_row(subject.state, model("a", only()), carryover=False).state

    said = [state()]
    subject.handle(arrive(1, "a"), 0)
    said.append(state())
    subject.handle(EngineFailed(1, "no memory"), 1)
    said.append(state())
    subject.handle(arrive(2, "a"), 100)
    subject.handle(ready(2), 104)
    said.append(state())
    assert said == ["unloaded", "loading", "failed", "loaded"]
