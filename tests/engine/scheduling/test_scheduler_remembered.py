"""What earlier runs have measured holds from the first request on, until this run knows better."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import GB, Step, arrive, play, ready, scheduler, variant
from trio_gateway.engine.scheduling.elsewhere_events import EngineWaking
from trio_gateway.engine.scheduling.events import EngineMeasured, Known, Remembered, VariantKey
from trio_gateway.engine.scheduling.progress import AnswerProgress

KEY = VariantKey("a", "only")
KNOWN = Known(memory_bytes=3 * GB, load_s=7.0, slots=2, prompt_speed=100.0, speed=10.0)


def test_memory_load_and_places_are_known_before_the_first_start() -> None:
    subject = scheduler(variant("a", estimated=5 * GB), memory_bytes=8 * GB)
    assert subject.handle(Remembered({KEY: KNOWN}), 0.0) == []
    (facts,) = subject.state.variants["a"]
    assert subject.state.variants.memory_of(facts) == 3 * GB
    assert subject.state.forecast.known_load_s(facts) == 7.0
    assert subject.state.variants.places(facts) == 2


def test_what_is_declared_stays() -> None:
    subject = scheduler(variant("a", declared=2 * GB, parallel=4), memory_bytes=8 * GB)
    subject.handle(Remembered({KEY: KNOWN}), 0.0)
    (facts,) = subject.state.variants["a"]
    assert subject.state.variants.memory_of(facts) == 2 * GB
    assert subject.state.variants.places(facts) == 4


def test_two_models_that_were_measured_small_enough_are_in_the_pool_together() -> None:
    both = variant("a", estimated=5 * GB), variant("b", estimated=5 * GB)
    subject = scheduler(*both, primary=2, memory_bytes=8 * GB)
    steps: list[Step] = [
        (0, Remembered({VariantKey(m, "only"): KNOWN for m in "ab"}), []),
        (1, arrive(1, "a"), ["start a:only as 1"]),
        (2, arrive(2, "b"), ["start b:only as 2"]),
    ]
    play(subject, steps)


def test_what_this_run_has_measured_stays() -> None:
    subject = scheduler(variant("a"))
    steps: list[Step] = [
        (0, arrive(1, "a"), ["start a:only as 1"]),
        (4, ready(1), ["grant 1 engine 1"]),
        (5, EngineMeasured(1, 4 * GB), []),
        (6, Remembered({KEY: KNOWN, VariantKey("gone", "only"): KNOWN}), []),
    ]
    play(subject, steps)
    (facts,) = subject.state.variants["a"]
    assert subject.state.variants.measured(facts) == 4 * GB
    assert subject.state.forecast.known_load_s(facts) == 4.0


def test_speeds_tell_how_long_an_answer_takes_until_answers_do() -> None:
    forecast = scheduler(variant("a")).state.forecast
    forecast.remember("a", 100.0, 10.0)
    asked = AnswerProgress(200, 50, is_seen=False)
    assert forecast.answer_s("a", asked, 4096) == pytest.approx(2.0 + 5.0)
    forecast.remember("a", 1.0, 1.0)  # of another variant, measured before
    assert forecast.answer_s("a", asked, 4096) == pytest.approx(7.0)


def test_how_long_a_machine_takes_to_wake_is_known_until_it_was_woken() -> None:
    subject = scheduler(variant("a"))
    forecast = subject.state.forecast
    subject.handle(Remembered({KEY: Known(wake_s=40.0)}), 0.0)
    assert forecast.wake_s(KEY) == 40.0
    steps: list[Step] = [
        (0, arrive(1, "a"), ["start a:only as 1"]),
        (1, EngineWaking(1), []),
        (25, ready(1), ["grant 1 engine 1"]),
        (26, Remembered({KEY: Known(wake_s=40.0)}), []),
    ]
    play(subject, steps)
    assert forecast.wake_s(KEY) == 25.0
    assert not forecast.has_loaded(subject.state.variants["a"][0])  # no load was measured
