"""What those get who follow the gateway: a snapshot, then what changes, and where to go on."""

from __future__ import annotations

import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, stream
from tests.support.feed_reader import reading
from tests.support.schema_values import config, model
from tests.support.stack import running_stack


async def test_a_reader_gets_all_that_there_is_first(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", aliases=("mm",)))) as stack:
        await stack.post(CHAT, chat())
        async with reading(stack) as reader:
            snapshot = await reader.next()
    assert snapshot.name == "snapshot"
    run, _, number = snapshot.id.rpartition("-")
    data = snapshot.data
    assert (data["run"], data["admin"], number.isdigit()) == (run, True, True)
    assert [pool["name"] for pool in data["pools"]] == ["primary", "secondary"]
    (engine,) = data["engines"]
    assert (engine["model"], engine["state"], engine["leases"]) == ("m", "ready", 0)
    assert engine["next"] == "stops in 300 s if nobody asks"
    assert data["requests"] == []
    (over,) = data["recent"]
    assert (over["stage"], over["outcome"], over["model"]) == ("done", "ok", "m")
    assert [moment["change"] for moment in data["timeline"]] == ["starting", "ready"]
    (known,) = data["models"]
    assert (known["name"], known["aliases"], known["state"]) == ("m", ["mm"], "loaded")
    assert known["variants"][0]["context"] == 4096
    assert known["variants"][0]["load_is"] == "measured"
    assert data["held"]["buffered_bytes"] == 0
    assert data["captures"] is None


async def test_then_what_changes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, reading(stack) as reader:
        await reader.next("snapshot")
        stack.engines.scripts = [[1.0, EVENT, 3.0, EVENT * 20, 3.0, DONE]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, stack, chat(stream=True))
            stages, engines = list[str](), list[str]()
            while not stages or stages[-1] != "done":
                event = await reader.next("request", "engine")
                if event.name == "engine":
                    engines.append(event.data["state"])
                else:
                    stages.append(event.data["stage"])
        seen = [*dict.fromkeys(stages)]  # it may be looked at before it is read
        assert seen[seen.index("waiting") :] == ["waiting", "reading", "answering", "done"]
        assert [*dict.fromkeys(engines)] == ["starting", "ready"]
        idle = await reader.next("engine")
        assert (idle.data["leases"], idle.data["idle_s"]) == (0, pytest.approx(0.2, abs=0.3))
        await stack.manager.unload("m")
        gone = await reader.next("engine_gone")
    assert gone.data == {"engine": 1}
    changes = [event.data["change"] for event in reader.events if event.name == "moment"]
    assert changes == ["starting", "ready", "stopping", "gone"]
    numbers = [int(event.id.rpartition("-")[2]) for event in reader.events]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
