"""Devices that are not there: NVIDIA's library, AMD's files and Apple's values, as recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from trio_gateway.hardware.devices import Device, DeviceKind, Holder, Reading

MIB, GIB = 2**20, 2**30
DRIVERS = 300 * MIB  # of each device


class FakeNvml:
    """The module `pynvml` on a machine with these devices: (pid, bytes) of each process.

    `divided`: by the index of a device, its parts (MIG), each with processes of its own.
    """

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801
        pass

    class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801
        pass

    class NVMLError_NoPermission(NVMLError):  # noqa: N801
        pass

    def __init__(self, *devices: list[tuple[int, int | None]]) -> None:
        self.devices = devices
        self.divided: dict[int, Sequence[list[tuple[int, int | None]]]] = {}
        self.drawing: list[tuple[int, int | None]] = []
        self.total = 24 * GIB
        self.inits = 0
        self.init_error: Exception | None = None
        self.read_error: Exception | None = None
        self.drawing_error: Exception | None = None
        self.memory_error: Exception | None = None
        self.name_error: Exception | None = None

    def nvmlInit(self) -> None:  # noqa: N802
        self.inits += 1
        if self.init_error is not None:
            raise self.init_error

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return str(index)

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        if self.name_error is not None:
            raise self.name_error
        return f"NVIDIA GeForce RTX 409{handle[0]}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        if self.name_error is not None:
            raise self.name_error
        index, _, part = handle.partition("/")
        return f"MIG-{index}{part}aa-bb" if part else f"GPU-{index}aa-bb"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if not self.divided:
            raise self.NVMLError_NotSupported
        return [int(int(handle) in self.divided)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        if index >= len(self.divided[int(handle)]):
            raise self.NVMLError("Not Found")
        return f"{handle}/{index}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if self.memory_error is not None:
            raise self.memory_error
        used = sum(used or 0 for _, used in self._processes(handle)) + DRIVERS
        return SimpleNamespace(total=self.total, used=used, free=self.total - used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        if self.read_error is not None:
            raise self.read_error
        return [SimpleNamespace(pid=p, usedGpuMemory=used) for p, used in self._processes(handle)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        if self.drawing_error is not None:
            raise self.drawing_error
        return [SimpleNamespace(pid=p, usedGpuMemory=used) for p, used in self.drawing]

    def _processes(self, handle: str) -> list[tuple[int, int | None]]:
        index, _, part = handle.partition("/")
        return self.divided[int(index)][int(part)] if part else self.devices[int(index)]


class Said:
    """Hardware that says this; `reading` may be changed, or be an exception."""

    def __init__(
        self, *gpus: Device, ram: Device | None = None, faults: Sequence[str] = ()
    ) -> None:
        self.reading = Reading((*gpus, *([ram] if ram is not None else [])), tuple(faults))
        self.asked = 0

    def read(self) -> Reading:
        self.asked += 1
        return self.reading


def gpu(
    name: str = "cuda:0", *, total: int = 8 * GIB, free: int | None = None, used: int = 0,
    holders: Sequence[Holder] = (),
) -> Device:  # fmt: skip
    return Device(
        id=name,
        kind=DeviceKind(name.partition(":")[0]),
        name=name,
        total_bytes=total,
        free_bytes=total - used if free is None else free,
        holders=tuple(holders),
    )


def write_amd(
    root: Path, number: int, address: str, *, total: int, used: int, minor: int | None = None,
    gtt: int = 0, product: str = "", apu: bool = False, gpu_id: str = "1000",
) -> None:  # fmt: skip
    """A card's files, as amdgpu has them on an RX 7900 XTX and a Ryzen AI Max."""
    card = root / f"sys/class/drm/card{number}/device"
    minor = 128 + number if minor is None else minor
    (card / f"drm/renderD{minor}").mkdir(parents=True)
    for name, text in (
        ("vendor", "0x1002"), ("device", "0x744c"), ("product_name", product),
        ("uevent", f"DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME={address}"),
        ("mem_info_vram_total", total), ("mem_info_vram_used", used),
        ("mem_info_gtt_total", gtt), ("mem_info_gtt_used", 0),
    ):  # fmt: skip
        (card / name).write_text(f"{text}\n")
    node = root / f"sys/class/kfd/kfd/topology/nodes/{number + 1}"
    node.mkdir(parents=True)
    (node / "gpu_id").write_text(f"{gpu_id}\n")
    cores = 32 if apu else 0
    (node / "properties").write_text(
        f"cpu_cores_count {cores}\nsimd_count 80\ndrm_render_minor {minor}\n"
    )


def write_drawing(root: Path, pid: int, address: str, vram_kib: int, clients: int = 1) -> None:
    """A process that has the device open, twice for each client."""
    folder = root / f"proc/{pid}"
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    (folder / "fdinfo").mkdir(exist_ok=True)
    for i in range(2 * clients):
        (folder / f"fd/{i}").symlink_to("/dev/dri/renderD128")
        (folder / f"fdinfo/{i}").write_text(
            f"pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-pdev:\t{address}\n"
            f"drm-client-id:\t{i // 2}\ndrm-memory-vram:\t{vram_kib} KiB\n"
            f"drm-total-vram:\t{vram_kib} KiB\ndrm-memory-gtt:\t8 KiB\n"
        )
