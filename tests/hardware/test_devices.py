"""What is read of devices: each vendor's answers, and what goes wrong with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.devices import DRIVERS, GIB, MIB, FakeNvml, write_amd, write_drawing
from trio_gateway.hardware.amd import Amd
from trio_gateway.hardware.apple import Apple
from trio_gateway.hardware.devices import Device, DeviceKind, NotReadable
from trio_gateway.hardware.machine import Machine, this_machine
from trio_gateway.hardware.nvidia import Nvidia
from trio_gateway.hardware.ram import Ram

NOBODY = 2**22 + 1
ME = os.getpid()


def nvidia(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml, visible: str | None = None
) -> list[Device]:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return Nvidia({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}).read()


# -- NVIDIA -----------------------------------------------------------------------------------


def test_a_device_of_nvidia_says_what_is_free_and_who_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [device] = nvidia(monkeypatch, FakeNvml([(ME, 5 * MIB), (NOBODY, 7 * MIB), (NOBODY + 1, None)]))
    assert device.id == "cuda:0"
    assert device.name == "NVIDIA GeForce RTX 4090"
    assert (device.total_bytes, device.used_bytes) == (24 * GIB, 12 * MIB + DRIVERS)
    assert [(h.pid, bool(h.name), h.held_bytes) for h in device.holders] == [
        (ME, True, 5 * MIB), (NOBODY, False, 7 * MIB), (NOBODY + 1, False, None),
    ]  # fmt: skip


def test_without_the_library_of_its_driver_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setattr("trio_gateway.hardware.nvidia.LIBRARY", "libthere-is-none.so.1")
    assert Nvidia({}).read() == []
    assert "pynvml" not in sys.modules


@pytest.mark.parametrize(
    ("variable", "selectors"),
    [
        (None, ["GPU-0aa-bb", "GPU-1aa-bb", "GPU-2aa-bb"]),
        ("2,0", ["GPU-2aa-bb", "GPU-0aa-bb"]),
        ("GPU-1", ["GPU-1aa-bb"]),
        ("1, 7, 0", ["GPU-1aa-bb"]),  # CUDA ignores what comes after one that is not there
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_numbers_are_those_that_an_engine_sees(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, selectors: list[str]
) -> None:
    found = nvidia(monkeypatch, FakeNvml([], [], []), variable)
    assert [device.selector for device in found] == selectors
    assert [device.id for device in found] == [f"cuda:{i}" for i in range(len(selectors))]


def test_of_a_divided_device_programs_get_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([], [])
    nvml.divided[0] = [[(ME, MIB)], []]
    assert [d.selector for d in nvidia(monkeypatch, nvml)] == [
        "MIG-00aa-bb", "MIG-01aa-bb", "GPU-1aa-bb",
    ]  # fmt: skip


def test_a_device_without_memory_of_its_own_has_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = FakeNvml([(ME, 5)])
    nvml.memory_error = nvml.NVMLError_NotSupported()
    [device] = nvidia(monkeypatch, nvml)
    assert device.shares_ram
    assert device.total_bytes > 0


@pytest.mark.parametrize("which", ["name_error", "read_error", "drawing_error"])
def test_what_a_driver_does_not_tell_is_left_out(
    monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    nvml = FakeNvml([(ME, 5)])
    setattr(nvml, which, nvml.NVMLError_NoPermission())
    [device] = nvidia(monkeypatch, nvml)
    assert device.selector == ("0" if which == "name_error" else "GPU-0aa-bb")
    assert device.name


def test_a_lost_device_is_looked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    devices = Nvidia({})
    nvml.memory_error = nvml.NVMLError("GPU is lost")
    with pytest.raises(NotReadable, match="GPU is lost"):
        devices.read()
    nvml.memory_error = None
    assert len(devices.read()) == 1
    assert nvml.inits == 2


# -- AMD --------------------------------------------------------------------------------------


def test_amds_devices_are_counted_by_their_addresses(tmp_path: Path) -> None:
    write_amd(tmp_path, 1, "0000:03:00.0", total=24 * GIB, used=2 * GIB, product="RX 7900 XTX")
    write_amd(tmp_path, 0, "0000:0a:00.0", total=8 * GIB, used=9 * GIB, gpu_id="2000")
    write_drawing(tmp_path, NOBODY, "0000:03:00.0", vram_kib=1024, clients=2)
    computing = tmp_path / f"sys/class/kfd/kfd/proc/{ME}"
    computing.mkdir(parents=True)
    (computing / "vram_1000").write_text(f"{GIB}\n")
    first, second = Amd(tmp_path, {}).read()
    assert (first.id, first.name, first.free_bytes) == ("rocm:0", "RX 7900 XTX", 22 * GIB)
    assert first.held == {NOBODY: 2 * MIB, ME: GIB}
    assert (second.id, second.name, second.free_bytes) == ("rocm:1", "AMD GPU 0x744c", 0)
    [shown] = Amd(tmp_path, {"HIP_VISIBLE_DEVICES": "1"}).read()
    assert (shown.id, shown.total_bytes, shown.selector) == ("rocm:0", 8 * GIB, "1")
    assert Amd(tmp_path, {"HIP_VISIBLE_DEVICES": ""}).read() == []


def test_an_apu_has_a_share_of_the_machines_memory(tmp_path: Path) -> None:
    write_amd(tmp_path, 0, "0000:c4:00.0", total=GIB, used=0, gtt=MIB, apu=True)
    [device] = Amd(tmp_path, {}).read()
    assert device.shares_ram
    assert (device.total_bytes, device.free_bytes) == (GIB + MIB, GIB + MIB)


def test_other_cards_and_broken_files_are_left_out(tmp_path: Path) -> None:
    card = tmp_path / "sys/class/drm/card0/device"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x8086\n")
    write_amd(tmp_path, 1, "0000:03:00.0", total=GIB, used=0)
    (tmp_path / "sys/class/drm/card1/device/mem_info_vram_total").write_bytes(b"\xff\n")
    assert Amd(tmp_path, {}).read() == []


# -- Apple, and the RAM -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "limit", "usable"),
    [(16 * GIB, "0", 16 * GIB * 2 // 3), (64 * GIB, "", 48 * GIB), (64 * GIB, "57344", 56 * GIB)],
)
def test_apples_gpu_has_most_of_the_machines_memory(memory: int, limit: str, usable: int) -> None:
    said = {"hw.memsize": str(memory), "iogpu.wired_limit_mb": limit}
    apple = Apple(lambda name: said.get(name, ""), lambda: 10 * GIB, is_here=True)
    [device] = apple.read()
    assert (device.id, device.total_bytes) == ("metal", usable)
    assert device.free_bytes == min(usable, 10 * GIB)
    assert Apple(is_here=False).read() == []


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_limit_of_a_control_group_is_the_memory_that_there_is(tmp_path: Path) -> None:
    group = "sys__fs__cgroup__user_dot_slice"
    _write(
        tmp_path,
        proc__self__cgroup="0::/user.slice/mine\n",
        **{
            f"{group}__memory_dot_max": f"{200 * MIB}\n",
            f"{group}__memory_dot_current": f"{150 * MIB}\n",
            f"{group}__memory_dot_stat": f"anon 1\ninactive_file {50 * MIB}\n",
            f"{group}__mine__memory_dot_max": "max\n",
        },
    )
    device = Ram(tmp_path).read()
    assert (device.kind, device.total_bytes) == (DeviceKind.CPU, 200 * MIB)
    assert device.free_bytes == 100 * MIB


def test_so_is_one_of_the_first_version(tmp_path: Path) -> None:
    group = "sys__fs__cgroup__memory"
    _write(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/ab\n0::/\n",
        **{
            f"{group}__memory_dot_limit_in_bytes".replace("_dot_limit", ".limit"): f"{90 * MIB}\n",
            f"{group}__memory_dot_usage_in_bytes".replace("_dot_usage", ".usage"): f"{80 * MIB}\n",
        },
    )
    device = Ram(tmp_path).read()
    assert (device.total_bytes, device.free_bytes) == (90 * MIB, 10 * MIB)


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    device = Ram(tmp_path).read()
    assert 0 < device.free_bytes < device.total_bytes


# -- all of them ------------------------------------------------------------------------------


def test_one_driver_that_fails_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml([])
    nvml.memory_error = nvml.NVMLError("GPU is lost")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    write_amd(tmp_path, 0, "0000:03:00.0", total=GIB, used=0)
    reading = Machine(Nvidia({}), Amd(tmp_path, {}), Apple(is_here=False), Ram(tmp_path)).read()
    assert [device.id for device in reading.devices] == ["rocm:0", "cpu"]
    assert reading.faults == ("NVIDIA's driver: GPU is lost",)


def test_this_machine_says_at_least_what_its_memory_is() -> None:
    reading = this_machine({}).read()
    assert reading.device("cpu") is not None


def test_a_file_may_say_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    hardware = this_machine({"TRIO_GATEWAY_DEVICES_FILE": str(file)})
    assert "devices.json" in hardware.read().faults[0]
    file.write_text(
        '[{"id": "cuda:0", "total_bytes": 9, "free_bytes": 4,'
        ' "holders": [{"pid": 1, "name": "game", "held_bytes": 5}]}]'
    )
    [device] = hardware.read().devices
    assert (device.used_bytes, device.held) == (5, {1: 5})
