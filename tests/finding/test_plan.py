"""Contexts that fit the memory, and where each model runs."""

from __future__ import annotations

import pytest

from trio_gateway.finding.engines import Engine
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.machine import room_of
from trio_gateway.finding.models import Kind, Model
from trio_gateway.finding.plan import Planned, plan, planned
from trio_gateway.gguf.header import GgufHeader, Number
from trio_gateway.hardware.devices import Device, DeviceKind, Reading

GIB = 2**30


def model(
    name: str = "m", size_gib: float = 4.0, trained: int = 131_072, kind: Kind = Kind.CHAT
) -> Model:
    """One whose cache takes 128 KiB for each token: 1 GiB for 8,192."""
    values: dict[str, Number | list[Number]] = {
        "block_count": 32, "embedding_length": 4096, "attention.head_count": 32,
        "attention.head_count_kv": 8, "context_length": trained,
    }  # fmt: skip
    if kind is not Kind.CHAT:
        values |= {"attention.causal": 0, "pooling_type": 1}
    header = GgufHeader(architecture="llama", vocabulary=32_000, values=values)
    return Model(
        name=name, files=(f"/m/{name}.gguf",), kind=kind, header=header, quantization="Q4_K_M",
        size_bytes=int(size_gib * GIB), trained=trained,
    )  # fmt: skip


def contexts(found: Planned | Left) -> list[tuple[int, str | None]]:
    assert isinstance(found, Planned)
    return [(variant.context, variant.cache) for variant in found.variants]


@pytest.mark.parametrize(
    ("trained", "ladder"),
    [
        (512, [512]), (2048, [2048]), (4096, [2048, 4096]), (8192, [2048, 8192]),
        (32_768, [8192, 32_768]), (40_960, [8192, 40_960]), (131_072, [8192, 32_768, 131_072]),
        (262_144, [8192, 32_768, 131_072, 262_144]), (8_000, [2048, 7936]),
    ],
)  # fmt: skip
def test_the_ladder_ends_with_what_the_model_was_trained_for(
    trained: int, ladder: list[int]
) -> None:
    assert contexts(planned(model(trained=trained), 500 * GIB)) == [(c, None) for c in ladder]


def test_where_memory_is_short_it_ends_earlier_and_a_smaller_cache_goes_further() -> None:
    found = planned(model(), 9 * GIB)
    assert contexts(found) == [(8192, None), (32_768, None), (65_536, "q8_0")]
    assert isinstance(found, Planned)
    assert found.needs_bytes <= 9 * GIB
    assert contexts(planned(model(), 9 * GIB, may_shrink_cache=False)) == [
        (8192, None), (32_768, None),
    ]  # fmt: skip


def test_what_does_not_fit_at_all_is_left_with_both_numbers() -> None:
    found = planned(model(size_gib=40), 24 * GIB)
    assert isinstance(found, Left)
    assert found.reason == "no memory for it: needs 40.3 GiB, and there are 24.0 GiB"


def test_where_nobody_knows_the_memory_nothing_is_left() -> None:
    assert contexts(planned(model(size_gib=400), None))[-1] == (32_768, None)


def test_no_claim_of_a_context_is_too_large() -> None:
    assert contexts(planned(model(trained=2**40), None))[-1] == (32_768, None)


def test_helpers_run_next_to_the_others_and_have_their_own_memory() -> None:
    vectors = model("vectors", 0.5, 2048, Kind.EMBEDDING)
    found = plan([model("big"), model("tiny", 0.3), vectors], 24 * GIB)
    assert [(p.model.name, p.is_helper) for p in found.models] == [
        ("big", False), ("tiny", True), ("vectors", True),
    ]  # fmt: skip
    assert found.primary_bytes is not None
    assert found.secondary_bytes is not None
    assert found.primary_bytes + found.secondary_bytes == 24 * GIB
    needs = {p.model.name: p.needs_bytes for p in found.models}
    assert needs["big"] <= found.primary_bytes
    assert max(needs["tiny"], needs["vectors"]) <= found.secondary_bytes


def test_a_small_model_on_its_own_is_no_helper() -> None:
    found = plan([model("tiny", 0.3)], 24 * GIB)
    assert [p.is_helper for p in found.models] == [False]
    assert (found.primary_bytes, found.secondary_bytes) == (24 * GIB, None)


def device(kind: DeviceKind, gib: int, name: str = "A") -> Device:
    size = gib * GIB
    known = kind.value if kind is DeviceKind.CPU else f"{kind.value}:0"
    return Device(id=known, kind=kind, name=name, total_bytes=size, free_bytes=size)


@pytest.mark.parametrize(
    ("devices", "said", "memory", "words"),
    [
        ([DeviceKind.CUDA], None, 21.6, "A, 24.0 GiB"),
        ([DeviceKind.CUDA, DeviceKind.CUDA], None, 43.2, "A, 24.0 GiB and A, 24.0 GiB"),
        ([DeviceKind.CUDA], (), 18, "24.0 GiB of memory, as the engine cannot use the A"),
        ([], (("Vulkan0: Arc", 16 * GIB),), 14.4, "Vulkan0: Arc, 16.0 GiB"),
        ([], None, 18, "24.0 GiB of memory, no GPU"),
    ],
)
def test_models_are_planned_for_what_the_engine_can_use(
    devices: list[DeviceKind], said: tuple[tuple[str, int], ...] | None, memory: float, words: str
) -> None:
    found = tuple(device(kind, 24) for kind in (*devices, DeviceKind.CPU))
    room = room_of(Reading(found), Engine(binary="llama-server", devices=said))
    assert room.memory_bytes == pytest.approx(memory * GIB, rel=0.001)
    assert room.words == words
    assert room.is_gpu == (memory != 18)


def test_memory_that_cannot_be_read_is_said_so() -> None:
    room = room_of(Reading(()), None)
    assert (room.memory_bytes, room.words) == (None, "memory of unknown size")


def test_left_by_the_plan_is_a_fault() -> None:
    found = plan([model(size_gib=40)], 24 * GIB)
    assert [entry.why for entry in found.left] == [Why.NO_MEMORY]
