"""From what was seen of a machine to findings: one for each thing that will not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.schema_values import config, model, variant
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.missing import Missing
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.config.schema import (
    EngineOptions,
    GatewayConfig,
    KvCarryoverConfig,
    ListenAddress,
)
from trio_gateway.config.wake_schema import WakeOnLan
from trio_gateway.engine.loadable import Said, program_of
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.examining.examination import CACHES, findings
from trio_gateway.examining.finding import Finding, Severity, error, exit_code, note, warning
from trio_gateway.examining.probes import has_no_device
from trio_gateway.examining.programs import old_build
from trio_gateway.examining.seen import Seen, SeenFile, SeenFolder, SeenGateway, SeenPort
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.hardware.devices import Device, DeviceKind, Holder, Reading

GIB = 2**30
FILE = Path("/models/m.gguf")
ARGS = ("-m", str(FILE))
TOOLS = "{% if tools %}{{ tools }}{% endif %}"


def header(**values: Any) -> GgufHeader:
    template = values.pop("template", TOOLS)
    return GgufHeader(
        architecture="qwen3", vocabulary=9, values={"context_length": 8192, **values},
        chat_template=template,
    )  # fmt: skip


def vision() -> GgufHeader:
    return GgufHeader(architecture="qwen2vl", vocabulary=9, values={}, chat_template=TOOLS)


def gpu(free: int = 24 * GIB, *holders: Holder) -> Device:
    return Device(
        id="cuda:0", kind=DeviceKind.CUDA, name="RTX", total_bytes=24 * GIB, free_bytes=free,
        holders=holders,
    )  # fmt: skip


RAM = Device(id="cpu", kind=DeviceKind.CPU, name="RAM", total_bytes=64 * GIB, free_bytes=50 * GIB)
GPU = Reading((gpu(), RAM))


def one(context: int = 4096, *args: str, **fields: Any) -> GatewayConfig:
    return config(model("m", variant(context, name="v", args=(*ARGS, *args))), **fields)


def sleeping() -> GatewayConfig:
    wake = WakeOnLan("0a:1b:2c:3d:4e:5f")
    return config(model("m", variant(options=EngineOptions(urls=("http://far",), wake=wake))))


def found(given: GatewayConfig, **seen: Any) -> list[Finding]:
    return findings(given, Seen(**seen))


def only(given: GatewayConfig, **seen: Any) -> str:
    (finding,) = found(given, **seen)
    return f"{finding.severity.value}: {finding.line}"


KEY = VariantKey("m", "v")
PROGRAM = program_of(one().models[0].variants[0])
SAVES: dict[str, Any] = {"kv_carryover": KvCarryoverConfig()}
WIDE: dict[str, Any] = {"listen": (ListenAddress("0.0.0.0", 7777),)}


def need(gib: float, source: str = "estimated") -> dict[VariantKey, tuple[int, str]]:
    return {KEY: (int(gib * GIB), source)}


def seen_file(**values: Any) -> dict[Path, SeenFile]:
    return {FILE: SeenFile(header(**values))}


CASES: dict[str, tuple[GatewayConfig, dict[str, Any], str]] = {
    "a file is missing": (
        one(), {"missing": (Missing("m: x does not exist", "m", "download it"),)},
        "error: m: x does not exist; download it",
    ),
    "a file is cut off": (
        one(), {"files": {FILE: SeenFile(fault="is cut off: of 9 bytes it has 5")}},
        'error: model "m": its model file /models/m.gguf is cut off: of 9 bytes it has 5; '
        "download it again",
    ),
    "a context is above the trained one": (
        one(16384), {"files": seen_file()},
        'warning: model "m", variant v: its context of 16384 tokens is more than the 8192 that',
    ),
    "no tools": (
        one(), {"files": seen_file(template="{{ messages }}")},
        'note: model "m": its chat template has no place for tools',
    ),
    "no template": (
        one(), {"files": seen_file(template=None)},
        'note: model "m": its file has no chat template',
    ),
    "an unused projector": (
        one(), {"files": {FILE: SeenFile(header(), projectors=("mmproj-m.gguf",))}},
        'note: model "m": it takes no images, though mmproj-m.gguf lies beside its file',
    ),
    "no projector": (
        one(), {"files": {FILE: SeenFile(vision())}},
        'note: model "m": it takes no images, though a qwen2vl can look at some',
    ),
    "a program that cannot be run": (
        one(), {"programs": {PROGRAM: Said(None, "Exec format error")}},
        'error: model "m": binary: fake cannot be run: Exec format error',
    ),
    "a program that hangs": (
        one(), {"programs": {PROGRAM: Said(None)}}, 'warning: model "m": binary: fake did not',
    ),
    "a program that is killed": (
        one(), {"programs": {PROGRAM: Said(-4)}}, 'error: model "m": binary: fake was ended by',
    ),
    "a program that fails": (
        one(), {"programs": {PROGRAM: Said(1, "cannot open display\n\n")}},
        'error: model "m": binary: fake ends with status 1 when asked for its --version: cannot',
    ),
    "a library is missing": (
        one(),
        {"programs": {PROGRAM: Said(127, "libgomp.so.1: cannot open shared object file")}},
        'error: model "m": binary: fake cannot be loaded: libgomp.so.1 is missing; install',
    ),
    "an old build with a model that has a state": (
        one(**SAVES),
        {"programs": {PROGRAM: Said(0, "version: 9000 (abc)")}, "files": seen_file(**{"ssm.x": 1})},
        'note: model "m": fake is build 9000, and builds of before October 2026 restore little',
    ),
    "a build without the GPU": (
        one(), {"programs": {PROGRAM: Said(0)}, "idle_gpus": frozenset({PROGRAM}), "reading": GPU},
        "warning: fake finds no GPU to use, though there is one (RTX)",
    ),
    "more than the device has": (
        one(), {"memory": need(30), "reading": GPU},
        'warning: model "m", variant v: it needs 30.0 GiB (estimated), and cuda:0 (RTX) has 24.0',
    ),
    "more than is free": (
        one(),
        {"memory": need(20), "reading": Reading((gpu(8 * GIB, Holder(1, "game", 15 * GIB)), RAM))},
        'warning: model "m", variant v: it needs 20.0 GiB (estimated), and of cuda:0 (RTX) 8.0 GiB '
        "are free now (held by game 15.0 GiB)",
    ),
    "on the processor": (
        one(4096, "-ngl", "0"), {"memory": need(70), "reading": GPU},
        'warning: model "m", variant v: it needs 70.0 GiB (estimated), and cpu (RAM) has 64.0 GiB',
    ),
    "a driver does not answer": (
        one(), {"reading": Reading((RAM,), ("NVML: driver mismatch",))},
        "warning: NVML: driver mismatch; repair or restart the driver",
    ),
    "an address is in use": (
        one(), {"ports": {"127.0.0.1:7777": SeenPort("in use", "pid 9 (nginx)", 9)}},
        "error: 127.0.0.1:7777 is in use by pid 9 (nginx)",
    ),
    "an address is not of this machine": (
        one(), {"ports": {"127.0.0.1:7777": SeenPort("Cannot assign requested address")}},
        "error: 127.0.0.1:7777 cannot be listened on: Cannot assign requested address",
    ),
    "the gateway runs": (
        one(),
        {
            "ports": {"127.0.0.1:7777": SeenPort("", "pid 9 (trio)", 9, is_gateway=True)},
            "gateways": (SeenGateway(9, 1),),
        },
        "warning: a gateway runs at 127.0.0.1:7777 already, pid 9 (trio)",
    ),
    "another gateway runs": (
        one(), {"gateways": (SeenGateway(9, 2, 3 * GIB),)},
        "warning: another gateway runs (pid 9), with 2 engines that hold 3.0 GiB",
    ),
    "an engine's port is in use": (
        one(), {"ports": {"127.0.0.1:8080": SeenPort("in use", "pid 9 (x)", 9)}},
        "warning: 127.0.0.1:8080, the address of an engine, is in use by pid 9 (x)",
    ),
    "a server elsewhere is away": (
        one(), {"unreachable": {"http://far": "Connection refused"}},
        "warning: http://far cannot be reached: Connection refused",
    ),
    "a machine elsewhere sleeps": (
        sleeping(),
        {"unreachable": {"http://far": "Connection refused"}},
        "note: http://far cannot be reached: Connection refused",
    ),
    "nothing can be written": (
        one(), {"folders": {"server.dumps_dir": (Path("/d"), SeenFolder("/ is read-only"))}},
        "warning: server.dumps_dir: nothing can be written in /d: / is read-only",
    ),
    "the disk is nearly full": (
        one(**SAVES), {"folders": {CACHES: (Path("/c"), SeenFolder(free_bytes=GIB))}},
        "warning: server.kv_carryover: /c may take 4.0 GiB, and its disk has 1.0 GiB left",
    ),
    "few files": (one(), {"open_files": 1024}, "warning: no more than 1024 files may be open"),
    "no TLS": (one(), {"tls_fault": "key values mismatch"}, "error: server.tls: key values"),
    "open to all": (
        one(**WIDE, access=AccessConfig(allow_unauthenticated=True)), {},
        "warning: whoever reaches 0.0.0.0:7777 may use every model",
    ),
    "nobody is an admin": (
        one(**WIDE, access=AccessConfig(api_keys=(ApiKey(name="a", secret="x"),))), {},
        "note: no API key is an admin's",
    ),
    "keys that others can read": (one(), {"readable": ("g.lua can be read",)}, "warning: g.lua"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_found(case: str) -> None:
    given, seen, line = CASES[case]
    assert only(given, **seen).startswith(line)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (one(), {}),
        (one(8192), {"files": seen_file(), "memory": need(20), "reading": GPU}),
        (one(16384, "--rope-scaling", "yarn"), {"files": seen_file()}),
        (one(4096, "--chat-template", "chatml"), {"files": seen_file(template=None)}),
        (one(4096, "--embeddings"), {"files": seen_file(template=None)}),
        (one(4096, "--mmproj", "p"), {"files": {FILE: SeenFile(header(), projectors=("p",))}}),
        (one(), {"programs": {PROGRAM: Said(1, "error: unknown argument: --version")}}),
        (
            one(),  # saves nothing
            {"files": seen_file(**{"ssm.x": 1}), "programs": {PROGRAM: Said(0, "version: 1 (")}},
        ),
    ],
)  # fmt: skip
def test_what_is_fine_is_not_told(given: GatewayConfig, seen: dict[str, Any]) -> None:
    assert found(given, **seen) == []


def test_what_engines_of_a_running_gateway_hold_is_not_in_the_way() -> None:
    reading = Reading((gpu(GIB), RAM))
    (finding,) = found(one(), memory=need(20), reading=reading, gateways=(SeenGateway(9, 1),))
    assert finding.text.startswith("another gateway runs")


@pytest.mark.parametrize(
    ("pool", "line"),
    [
        (PoolConfig("primary", 1, 30 * GIB), "pools.primary.memory is 30.0 GiB, and cuda:0 has 24"),
        (
            PoolConfig("primary", 2, None),
            "the pool primary lets 2 engines run, which may take 30",
        ),
        (PoolConfig("primary", 1, None), None),
        (PoolConfig("primary", 2, 20 * GIB), None),
        (PoolConfig("primary", 2, memory_auto=True), None),
        (PoolConfig("primary", 2, devices=(PoolDevice("cuda:0"),)), None),
        (PoolConfig("primary", 1, devices=(PoolDevice("cuda:3"),)), "pools.primary.devices: there"),
    ],
)
def test_pools_against_the_device(pool: PoolConfig, line: str | None) -> None:
    import msgspec

    both = [model(name, variant(4096, name="v", args=ARGS)) for name in ("m", "n")]
    given = msgspec.structs.replace(config(*both), pools={"primary": pool})
    memory = {VariantKey(name, "v"): (15 * GIB, "declared") for name in ("m", "n")}
    texts = [finding.text for finding in found(given, memory=memory, reading=GPU)]
    assert len(texts) == (line is not None)
    assert all(text.startswith(line or "") for text in texts)


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("version: 9000 (abc)\nbuilt with", "build 9000"),
        ("ggml_cuda_init: found 1\nversion: 11433 (abc)", "build 11433"),
        ("version: 11434 (abc)", None),
        ("version: 0 (unknown)", None),
        ("xllamacpp 2026.9.1", "xllamacpp 2026.9"),
        ("xllamacpp 2026.10.11549", None),
        ("", None),
    ],
)
def test_builds_that_are_known_to_restore_little(version: str, old: str | None) -> None:
    assert old_build(version) == old


@pytest.mark.parametrize(
    ("status", "text", "is_idle"),
    [
        (0, "Available devices:\n", True),
        (0, "Available devices:\n  CUDA0: RTX (24000 MiB, 23000 MiB free)\n", False),
        (1, "error: invalid argument: --list-devices", False),
        (0, "xllamacpp 2026.10", False),
        (None, "", False),
    ],
)
def test_programs_that_say_that_they_have_no_device(
    status: int | None, text: str, *, is_idle: bool
) -> None:
    assert has_no_device(status, text) is is_idle


def test_the_worst_comes_first_and_decides_the_exit_code() -> None:
    assert exit_code([]) == 0
    assert exit_code([note("n")]) == 0
    assert exit_code([note("n"), warning("w")]) == 1
    assert exit_code([note("n"), error("e"), warning("w")]) == 2
    given = one(16384)
    order = [f.severity for f in found(given, files=seen_file(template=None), tls_fault="x")]
    assert order == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
