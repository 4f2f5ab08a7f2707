"""AMD's devices, as the kernel tells in its files: no library is needed.

Sizes are in `/sys/class/drm/card*/device/`. Who holds memory: `/sys/class/kfd/kfd/proc` has what
computes (ROCm), `/proc/*/fdinfo` has what draws or uses Vulkan, of this user's processes. A device
without memory of its own (an APU) has a share of the RAM besides its carve-out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from trio_gateway.hardware.devices import Device, DeviceKind, Holder
from trio_gateway.hardware.names import process_name

VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # the second counts what the first left

_AMD = "0x1002"
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_VRAM = re.compile(r"^drm-(?:memory|total|resident)-vram:\s*(\d+)\s*(\w*)$", re.MULTILINE)
_FIELD = re.compile(r"^drm-(pdev|client-id):\s*(\S+)$", re.MULTILINE)


class _Node(msgspec.Struct, frozen=True):
    """A device as the driver for computing has it."""

    gpu_id: str
    is_apu: bool


class Amd:
    """`root`: where `sys` and `proc` are."""

    def __init__(self, root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> None:
        self._drm = root / "sys/class/drm"
        self._kfd = root / "sys/class/kfd/kfd"
        self._proc, self._environ = root / "proc", environ

    def read(self) -> list[Device]:
        cards = sorted(self._cards(), key=_address)
        if not cards:
            return []
        nodes = self._nodes()
        drawing = self._drawing()
        found = []
        for number, card in enumerate(self._visible(cards)):
            node = nodes.get(_render_minor(card))
            held = dict(drawing.get(_address(card), {}))
            for pid, size in self._computing(node) if node is not None else ():
                held[pid] = max(size, held.get(pid, 0))
            # Its own index, as HIP counts all devices.
            index = cards.index(card)
            found.append(_device(card, f"rocm:{number}", str(index), node, held))
        return found

    def _cards(self) -> Iterator[Path]:
        for card in self._drm.glob("card[0-9]*"):
            device = card / "device"
            if _text(device / "vendor") == _AMD and _number(device / "mem_info_vram_total"):
                yield device

    def _visible(self, cards: Sequence[Path]) -> Sequence[Path]:
        for variable in VISIBLE:
            words = self._environ.get(variable)
            if words is None:
                continue
            numbers = [word.strip() for word in words.split(",")]
            if words.strip() and not all(n.isdecimal() for n in numbers):
                continue  # devices named otherwise: nobody here knows which they are
            cards = [cards[int(n)] for n in numbers if n and int(n) < len(cards)]
        return cards

    def _nodes(self) -> dict[str, _Node]:
        """By the number of the device's render node."""
        found = {}
        for folder in self._kfd.glob("topology/nodes/*"):
            fields = dict(
                line.split(None, 1)
                for line in _text(folder / "properties").splitlines()
                if " " in line
            )
            gpu_id = _text(folder / "gpu_id")
            if gpu_id not in ("", "0"):
                is_apu = fields.get("cpu_cores_count", "0") != "0"
                found[fields.get("drm_render_minor", "")] = _Node(gpu_id, is_apu)
        return found

    def _computing(self, node: _Node) -> Iterator[tuple[int, int]]:
        for file in self._kfd.glob(f"proc/*/vram_{node.gpu_id}"):
            if file.parent.name.isdecimal() and (size := _number(file)):
                yield int(file.parent.name), size

    def _drawing(self) -> dict[str, dict[int, int]]:
        """By PCI address, the bytes that each process holds. Reads only what belongs to a device:
        20 ms with 300 processes."""
        found: dict[str, dict[int, int]] = {}
        for folder in self._proc.glob("[0-9]*"):
            seen = set[tuple[str, str]]()  # several descriptors may be one client
            for text in _of_devices(folder):
                fields = dict(_FIELD.findall(text))
                client = fields.get("pdev", ""), fields.get("client-id", "")
                sizes = [int(n) * _UNITS.get(unit, 1) for n, unit in _VRAM.findall(text)]
                if client in seen or not sizes:
                    continue
                seen.add(client)
                held = found.setdefault(client[0], {})
                held[int(folder.name)] = held.get(int(folder.name), 0) + max(sizes)
        return found


def _of_devices(process: Path) -> Iterator[str]:
    try:
        with os.scandir(process / "fd") as entries:
            for entry in entries:
                if os.readlink(entry.path).startswith("/dev/dri/"):
                    yield (process / "fdinfo" / entry.name).read_text()
    except OSError:  # another user's, or gone
        return


def _device(
    card: Path, name: str, selector: str, node: _Node | None, held: Mapping[int, int]
) -> Device:
    total = _number(card / "mem_info_vram_total")
    free = max(total - _number(card / "mem_info_vram_used"), 0)
    is_apu = node is not None and node.is_apu
    if is_apu:
        shared = _number(card / "mem_info_gtt_total")
        shared_free = max(shared - _number(card / "mem_info_gtt_used"), 0)
        total += shared
        free += min(shared_free, int(psutil.virtual_memory().available))
    model = _text(card / "product_name") or f"AMD GPU {_text(card / 'device')}".strip()
    return Device(
        id=name,
        kind=DeviceKind.ROCM,
        name=model,
        total_bytes=total,
        free_bytes=free,
        holders=tuple(Holder(pid, process_name(pid), size) for pid, size in held.items()),
        shares_ram=is_apu,
        selector=selector,
    )


def _address(device: Path) -> str:
    match = re.search(r"^PCI_SLOT_NAME=(\S+)$", _text(device / "uevent"), re.MULTILINE)
    return match[1] if match else device.parent.name


def _render_minor(device: Path) -> str:
    node = next(device.glob("drm/renderD*"), None)
    return node.name.removeprefix("renderD") if node is not None else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> int:
    text = _text(file)
    return int(text) if text.isdecimal() else 0
