"""Whose memory is whose, by what drivers say; and how an engine is told its devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.devices import GIB, gpu
from tests.support.schema_values import variant
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.engine.placement import placed
from trio_gateway.engine.pool_readings import PoolsEngines, places_of, usual_devices
from trio_gateway.engine.scheduling.memory_events import Holding, PlaceSeen
from trio_gateway.hardware.devices import Device, Holder, Reading

MINE, NOBODYS = os.getpid(), 2**22 + 1
ME = frozenset({os.getpgrp()})
AUTO = PoolConfig("gpu", memory_auto=True)


def seen(
    *devices: Device, pool: PoolConfig = AUTO, groups: frozenset[int] = ME, known: int | None = 0
) -> list[tuple[str, int, int, list[tuple[str, int | None]]]] | None:
    engines = {"gpu": PoolsEngines(groups, known)}
    found = places_of(Reading(devices), pool, engines)
    if found is None:
        return None
    return [
        (s.place, s.total_bytes, s.others_bytes, [(h.name, h.held_bytes) for h in s.holders])
        for s in found
    ]


def held(*holders: tuple[int, str, int | None], used: int = 4, name: str = "cuda:0") -> Device:
    sizes = [Holder(pid, who, n if n is None else n * GIB) for pid, who, n in holders]
    return gpu(name, total=8 * GIB, used=used * GIB, holders=sizes)


def test_what_its_engines_do_not_hold_is_others() -> None:
    device = held((MINE, "llama-server", 3), (NOBODYS, "game", 1))
    assert seen(device) == [("", 8 * GIB, 1 * GIB, [("game", 1 * GIB)])]


def test_processes_of_one_name_are_added_and_the_largest_comes_first() -> None:
    device = held((NOBODYS, "firefox", 1), (NOBODYS + 1, "game", 2), (NOBODYS + 2, "firefox", 0))
    assert seen(device, groups=frozenset()) == [
        ("", 8 * GIB, 4 * GIB, [("game", 2 * GIB), ("firefox", 1 * GIB)])
    ]


@pytest.mark.parametrize(
    "device",
    [held((NOBODYS, "", 3), (NOBODYS + 1, "", 1)), held()],
    ids=["other names", "no names"],
)
def test_in_a_container_it_goes_by_what_is_known_of_the_engines(device: Device) -> None:
    assert seen(device, known=3 * GIB) == [("", 8 * GIB, 1 * GIB, [])]
    assert seen(device, known=None) is None  # one of them loads


def test_an_engine_that_uses_no_gpu_leaves_it_to_others() -> None:
    device = held((NOBODYS, "game", 4))
    assert seen(device, known=3 * GIB) == [("", 8 * GIB, 4 * GIB, [("game", 4 * GIB)])]


def test_engines_of_another_pool_are_others_under_its_name() -> None:
    engines = {"gpu": PoolsEngines(), "helpers": PoolsEngines(ME, 0)}
    found = places_of(Reading((held((MINE, "llama-server", 3)),)), AUTO, engines)
    assert found == (PlaceSeen("", 8 * GIB, 4 * GIB, (Holding("the pool helpers", 3 * GIB),)),)


def test_without_named_devices_it_is_all_gpus_of_one_kind() -> None:
    first, second = held(), held(name="cuda:1")
    assert seen(first, second, groups=frozenset()) == [("", 16 * GIB, 8 * GIB, [])]
    ram = gpu("cpu")
    assert usual_devices(Reading((first, gpu("rocm:0"), ram))) == [first]
    assert usual_devices(Reading((ram,))) == [ram]


def test_each_named_device_is_a_place_and_one_that_is_not_there_is_missing() -> None:
    devices = PoolDevice("cuda:1"), PoolDevice("cuda:7"), PoolDevice("cuda:0", GIB)
    pool = PoolConfig("gpu", devices=devices)
    assert seen(held(), held(name="cuda:1", used=2), pool=pool, groups=frozenset()) == [
        ("cuda:1", 8 * GIB, 2 * GIB, [])
    ]


def test_what_no_driver_tells_about_is_the_only_gpu_there_is() -> None:
    pool = PoolConfig("gpu", devices=(PoolDevice("vulkan:0"),))
    assert seen(held(), pool=pool, groups=frozenset()) == [("vulkan:0", 8 * GIB, 4 * GIB, [])]
    assert seen(held(), held(name="cuda:1"), pool=pool) == []


@pytest.mark.processes
def test_of_the_ram_it_is_what_processes_have_for_themselves() -> None:
    ram = gpu("cpu", total=128 * GIB, used=64 * GIB)
    [(_, _, others, _)] = seen(ram) or []
    assert 48 * GIB < others < 64 * GIB  # the tests beside this one are of its group


@pytest.mark.parametrize(
    ("devices", "env"),
    [
        (["cuda:1"], {"CUDA_VISIBLE_DEVICES": "GPU-b"}),
        (["cuda:0", "cuda:1"], {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}),
        (["cuda:3"], {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        (["rocm:0"], {"HIP_VISIBLE_DEVICES": "0"}),
        (["vulkan:1"], {"GGML_VK_VISIBLE_DEVICES": "1"}),
        (["sycl:0", "sycl:1"], {"ONEAPI_DEVICE_SELECTOR": "level_zero:0,1"}),
        (["metal"], {}),
        (["cpu"], {}),
        ([], {}),
    ],
)
def test_an_engine_is_told_its_devices_by_its_environment(
    devices: list[str], env: dict[str, str]
) -> None:
    known = {
        name: Device(
            id=name, kind=gpu(name).kind, name=name, total_bytes=1, free_bytes=1, selector=selector
        )
        for name, selector in (("cuda:0", "GPU-a"), ("cuda:1", "GPU-b"))
    }
    plain = variant(100, env={"A": "1"}, workdir=Path("/"))
    assert placed(plain, devices, known).env == {"A": "1", **env}
