"""The memory of a process group: real processes, and a stand-in for NVIDIA's library."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import trio
import trio.testing

from tests.support.devices import FakeNvml
from trio_gateway.engine.process import memory_meter
from trio_gateway.engine.process.memory_meter import MemoryMeter, watch_peak

pytestmark = pytest.mark.processes

MIB = 2**20
HELD = 40 * MIB

# Each holds 40 MiB that it has written to; the first starts the second and tells its id.
GRANDCHILD = f"held = bytearray(b'x') * {HELD}; print('ready', flush=True); input()"
CHILD = f"""
import subprocess, sys
held = bytearray(b'x') * {HELD}
other = subprocess.Popen([sys.executable, '-c', {GRANDCHILD!r}], stdout=subprocess.PIPE)
other.stdout.readline()
print(other.pid, flush=True)
input()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """The ids of a child, which leads a group, and of a grandchild in it."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> MemoryMeter:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return MemoryMeter()


# -- resident memory ------------------------------------------------------------------------


def test_resident_memory_is_that_of_the_whole_group(family: tuple[int, int]) -> None:
    child, grandchild = family
    held = MemoryMeter().read(child)
    assert held is not None
    each = [psutil.Process(pid).memory_info().rss for pid in (child, grandchild)]
    assert held == pytest.approx(sum(each), rel=0.01)
    assert held > 2 * HELD


def test_a_process_whose_parent_has_ended_still_counts(family: tuple[int, int]) -> None:
    child, grandchild = family
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # a zombie now
    rest = psutil.Process(grandchild).memory_info().rss
    assert MemoryMeter().read(child) == pytest.approx(rest, rel=0.01)


def test_a_group_that_is_gone_holds_nothing_that_can_be_read(family: tuple[int, int]) -> None:
    child, _ = family
    os.killpg(child, signal.SIGKILL)
    meter, until = MemoryMeter(), time.monotonic() + 10
    while meter.read(child) is not None:
        assert time.monotonic() < until
        time.sleep(0.01)


# -- memory of a GPU ------------------------------------------------------------------------


def test_gpu_memory_is_summed_over_processes_and_devices(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, grandchild = family
    stranger = os.getpid()
    nvml = FakeNvml([(child, 100), (stranger, 7), (2**22 + 1, 9)], [(child, 20), (grandchild, 3)])
    assert use(monkeypatch, nvml).read(child) == 123


def test_a_process_that_computes_and_draws_counts_once(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    nvml = FakeNvml([(child, 100)])
    nvml.drawing = [(child, 100)]
    assert use(monkeypatch, nvml).read(child) == 100


def test_gpu_memory_that_the_driver_does_not_tell_is_not_replaced_by_resident_memory(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    assert use(monkeypatch, FakeNvml([(child, None), (os.getpid(), 5)])).read(child) is None


def test_resident_memory_counts_where_no_gpu_memory_is_used(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    held = use(monkeypatch, FakeNvml([(child, 0), (os.getpid(), 5)])).read(child)
    assert held is not None
    assert held > 2 * HELD


def test_a_machine_without_a_device_is_asked_only_once(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    nvml = FakeNvml()
    nvml.init_error = nvml.NVMLError("Library Not Found")
    meter = use(monkeypatch, nvml)
    assert meter.read(child)
    assert meter.read(child)
    assert nvml.inits == 1


def test_the_library_is_initialised_once_and_not_before_the_first_reading(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    nvml = FakeNvml([(child, 100)])
    meter = use(monkeypatch, nvml)
    assert nvml.inits == 0
    assert [meter.read(child), meter.read(child)] == [100, 100]
    assert nvml.inits == 1


def test_a_device_that_does_not_answer_gives_no_reading_and_is_asked_again(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    nvml = FakeNvml([(child, 100)])
    nvml.read_error = nvml.NVMLError("GPU is lost")
    meter = use(monkeypatch, nvml)
    assert meter.read(child) is None
    nvml.read_error = None
    assert meter.read(child) == 100


def test_a_device_without_a_list_of_what_draws_is_no_failure(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, _ = family
    nvml = FakeNvml([(child, 100)])
    nvml.drawing_error = nvml.NVMLError_NotSupported()
    assert use(monkeypatch, nvml).read(child) == 100


async def test_a_peak_is_reported_whenever_it_grows_until_nothing_can_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_meter, "FIRST_READING_S", 0)
    readings = iter([5, 3, None, 8, 8])
    broken = trio.Event()

    def read(group: int) -> int | None:
        assert group == 7
        try:
            return next(readings)
        except StopIteration:
            trio.from_thread.run_sync(broken.set)
            raise OSError(24, "Too many open files") from None

    peaks: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_peak, read, 7, 0.0, peaks.append)
        with trio.fail_after(10):
            await broken.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(nursery.child_tasks) == 1  # the engine that works is left alone
        nursery.cancel_scope.cancel(reason="the test is over")
    assert peaks == [5, 8]
    assert "Too many open files" in caplog.text
