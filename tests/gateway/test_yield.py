"""Memory that is yielded to another program, through the whole gateway."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.config.schema import GatewayConfig

GIB, YIELD = 2**30, "/gateway/yield"


def given(pool: PoolConfig | None = None, **server: Any) -> GatewayConfig:
    pool = pool or PoolConfig("primary", 2, memory_bytes=16 * GIB)
    sized = model("m", variant(4096, memory_bytes=10 * GIB))
    return msgspec.structs.replace(config(sized, **server), pools={"primary": pool})


def asks(memory: str | int = "12GiB", **fields: Any) -> bytes:
    return json.dumps({"memory": memory, **fields}).encode()


async def yields(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((await stack.get(YIELD)).content)["yields"]
    return found


async def test_an_idle_engine_leaves_and_comes_back_when_the_time_is_over(
    autojump_clock: Clock,
) -> None:
    async with running_stack(given()) as stack:
        stack.engines.scripts = [[b"{}"], [b"{}"]]
        await stack.post(CHAT, chat("m"))
        answer = await stack.post(YIELD, asks(seconds=60))
        assert answer.status == 200
        row = json.loads(answer.content)
        assert (row["id"], row["state"], row["memory_bytes"]) == (1, "held", 12 * GIB)
        assert stack.manager.overview.engines() == []
        [pool] = stack.manager.overview.pools()
        assert pool.yielded_bytes == 12 * GIB
        begun = trio.current_time()
        assert (await stack.post(CHAT, chat("m"))).status == 200
        assert trio.current_time() - begun >= 59
        assert await yields(stack) == []


async def test_it_is_answered_once_what_runs_is_done_and_delete_ends_it(
    autojump_clock: Clock,
) -> None:
    async with running_stack(given()) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 30.0, DONE]]
        nursery.start_soon(stream, stack, chat("m", stream=True))
        await trio.sleep(10)
        nursery.start_soon(stack.post, YIELD, asks(seconds=600))
        await trio.sleep(1)
        [row] = await yields(stack)
        assert (row["state"], row["waits_for"]) == ("waiting", ["m:4096"])
        await trio.sleep(60)
        assert [row["state"] for row in await yields(stack)] == ["held"]
        ended = await stack.http.request("DELETE", f"http://gateway{YIELD}/1")
        assert json.loads(ended.content) == {"id": 1, "ended": True}
        assert await yields(stack) == []


async def test_a_stream_says_how_it_goes_until_it_is_over(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[b"{}"]]
        await stack.post(CHAT, chat("m"))
        told: list[bytes] = []

        async def hold() -> None:
            told.append((await stack.post(YIELD, asks(stream=True))).content)

        nursery.start_soon(hold)
        await trio.sleep(60)
        assert len(await yields(stack)) == 1
        await stack.http.request("DELETE", f"http://gateway{YIELD}/1")
        await trio.sleep(1)
        lines = [json.loads(line) for line in told[0].splitlines() if line]
        # The virtual clock drifts from the wall's, of which lines have times.
        assert [*dict.fromkeys(line["state"] for line in lines)] == ["waiting", "held", "over"]
        assert lines[-1]["reason"] == "it was ended by an admin"


async def test_a_client_that_goes_while_it_waits_leaves_nothing_behind(
    autojump_clock: Clock,
) -> None:
    async with running_stack(given()) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 30.0, DONE]]
        nursery.start_soon(stream, stack, chat("m", stream=True))
        await trio.sleep(10)
        with trio.move_on_after(2):
            await stack.post(YIELD, asks(seconds=600))
        await trio.sleep(1)
        assert await yields(stack) == []
        [engine] = stack.manager.overview.engines()
        assert engine.state == "ready"


async def test_two_add_up_and_more_than_there_is_cannot_be_had(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        assert (await stack.post(YIELD, asks(seconds=60))).status == 200
        assert (await stack.post(YIELD, asks("3GiB", seconds=60))).status == 200
        answer = await stack.post(YIELD, asks("2GiB", seconds=60))
        assert answer.status == 409
        assert error_of(answer)["message"] == (
            "2.0 GiB cannot be had of the pool primary, 1.0 GiB can; 15.0 GiB are yielded already"
        )
        answer = await stack.post(YIELD, asks("17GiB", seconds=60))
        assert answer.status == 400
        assert (
            error_of(answer)["message"] == "17.0 GiB are more than the pool primary has: 16.0 GiB"
        )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not valid"),
        (b"[]", "the body is not valid"),
        (asks(), "seconds is missing"),
        (asks(seconds=0), "seconds has to be more than 0"),
        (asks("lots", seconds=1), "memory: expected a size"),
        (asks(-1, seconds=1), "memory: expected a size"),
        (asks(seconds=1, pool="x"), "no pool 'x'; known: primary"),
        (
            asks(seconds=1, device="cuda:0"),
            "the pool primary has no device 'cuda:0'",
        ),
        (
            asks(seconds=1, amount=2),
            "the body is not valid: Object contains unknown",
        ),
    ],
)
async def test_what_cannot_be_is_said(autojump_clock: Clock, body: bytes, said: str) -> None:
    async with running_stack(given()) as stack:
        answer = await stack.post(YIELD, body)
        assert answer.status == 400
        assert error_of(answer)["message"].startswith(said)
        assert await yields(stack) == []


async def test_of_several_devices_it_is_one(autojump_clock: Clock) -> None:
    devices = PoolDevice("cuda:0", 12 * GIB), PoolDevice("cuda:1", 16 * GIB)
    async with running_stack(given(PoolConfig("primary", 2, devices=devices))) as stack:
        stack.engines.scripts = [[b"{}"]]
        row = json.loads((await stack.post(YIELD, asks("10GiB", seconds=60))).content)
        assert row["device"] == "cuda:1"
        await stack.post(CHAT, chat("m"))
        answer = await stack.post(YIELD, asks("14GiB", seconds=60, device="cuda:0"))
        assert "are more than cuda:0 of the pool primary has" in error_of(answer)["message"]
        [pool] = stack.manager.overview.pools()
        assert [(d.name, d.used_bytes) for d in pool.devices] == [
            ("cuda:0", 10 * GIB), ("cuda:1", 0),
        ]  # fmt: skip


async def test_a_pool_that_a_reload_takes_away_ends_it(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        await stack.post(YIELD, asks(seconds=60))
        other = msgspec.structs.replace(given(), pools={"primary": PoolConfig("primary", devices=(
            PoolDevice("cuda:0", 16 * GIB),))})  # fmt: skip
        stack.gateway.take_over(other)
        assert await yields(stack) == []
