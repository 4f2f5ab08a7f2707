"""What other programs hold of the memory of a pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import pytest

from tests.support.devices import gpu
from tests.support.schema_values import config, model
from trio_gateway.engine import others as others_module
from trio_gateway.engine.configured import Configured
from trio_gateway.engine.others import Others
from trio_gateway.engine.pool_readings import PoolsEngines, others_of
from trio_gateway.engine.scheduling.state import SchedulerState
from trio_gateway.hardware.devices import Device, Holder, Reading

MIB = 2**20
ME = os.getpgrp()
MINE, NOBODYS = os.getpid(), 2**22 + 1  # a process of this group, and none


class Says:
    """Hardware that says this, or does not."""

    def __init__(self, devices: Sequence[Device], fault: Exception | None = None) -> None:
        self._devices, self._fault = devices, fault

    def read(self) -> Reading:
        if self._fault is not None:
            raise self._fault
        return Reading(tuple(self._devices))


def read(readings: Sequence[Device]) -> Reading:
    return Reading((*readings, gpu("cpu", total=1000 * MIB, used=0 if readings else 500 * MIB)))


def engines(**groups: list[int]) -> dict[str, PoolsEngines]:
    return {name: PoolsEngines(frozenset(its)) for name, its in groups.items()}


def asked_of(hardware: Says) -> Others:
    return Others(hardware, Configured(config(model("m"))), {}, SchedulerState([], {}))


def others(readings: Sequence[Device], **groups: list[int]) -> dict[str, int | None]:
    return others_of(read(readings), engines(**groups))


def used(total: int, **held: int) -> Device:
    pids = {"mine": MINE, "nobodys": NOBODYS}
    holders = [Holder(pids[who], who, size * MIB) for who, size in held.items()]
    return gpu(used=total * MIB, holders=holders)


ONE = used(900, mine=500, nobodys=300)
OTHERS_ONLY = used(400, nobodys=400)


def test_of_the_devices_that_the_pools_engines_use() -> None:
    assert others([ONE, OTHERS_ONLY], gpu=[ME]) == {"gpu": 400 * MIB}


def test_of_the_only_device_before_there_is_an_engine() -> None:
    assert others([OTHERS_ONLY], gpu=[]) == {"gpu": 400 * MIB}


def test_what_the_engines_of_another_pool_hold_is_not_others() -> None:
    assert others([ONE], gpu=[ME], more=[]) == {"gpu": 400 * MIB, "more": 400 * MIB}


def test_it_is_not_known_which_of_several_devices_will_be_used() -> None:
    assert others([ONE, OTHERS_ONLY], gpu=[]) == {"gpu": None}


def test_it_is_not_known_where_the_driver_does_not_name_the_engines() -> None:
    assert others([OTHERS_ONLY], gpu=[ME]) == {"gpu": None}


def test_a_driver_that_does_not_answer_is_no_reason_to_fail() -> None:
    assert others_of(Reading((), ("broken",)), engines(gpu=[ME])) == {"gpu": None}


@pytest.mark.processes
def test_without_a_device_it_is_the_memory_of_the_machine() -> None:
    held = others([], cpu=[])["cpu"]
    assert held is not None
    assert held > 10 * MIB
    assert (others([], cpu=[ME])["cpu"] or 0) <= held + 500 * MIB


class Slow(Says):
    """Takes as long as one wants. `asked`: how often."""

    def __init__(self) -> None:
        super().__init__([OTHERS_ONLY])
        self.asked, self.goes_on = 0, threading.Event()
        self.goes_on.set()

    def read(self) -> Reading:
        self.asked += 1
        self.goes_on.wait()
        return super().read()


async def test_who_asks_gets_what_is_some_seconds_old_at_most() -> None:
    meter = Slow()
    asked = asked_of(meter)
    for _ in range(3):
        assert await asked.now() == {"primary": 400 * MIB}
    assert meter.asked == 1


async def test_a_driver_that_hangs_holds_nobody_up_and_takes_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(others_module, "ASK_S", 0.02)
    meter = Slow()
    asked = asked_of(meter)
    meter.goes_on.clear()
    try:
        for _ in range(3):
            assert await asked.now() == {}
        assert meter.asked == 1
    finally:
        meter.goes_on.set()


async def test_a_driver_that_breaks_is_no_reason_to_fail_either() -> None:
    assert await asked_of(Says([], OSError("broken"))).now() == {}
