"""Models of other gateways, as this one lists, chooses and pins them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.support.asking import Clock, error_of
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.choice_schema import ChoiceConfig, Member
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad

HERE, THERE = model("here"), model(
    "there", engine=ENGINE_TYPES["remote"], pool="remote", peer="box2",
    capabilities=frozenset({"completion", "tools", "telepathy"}),
    endpoints=frozenset({"chat/completions"}),
)  # fmt: skip
BOTH = ChoiceConfig(name="any", members=(Member("here", "here"), Member("there", "there")))

OWN = ChoiceConfig(name="own", members=(Member("here", "here"),))


def given(*more: Any) -> GatewayConfig:
    known = config(HERE, THERE, *more, pools={"primary": 1, "remote": 1000})
    return msgspec.structs.replace(known, choices=(BOTH, OWN))


async def rows(stack: Stack, path: str, key: str, name: str) -> dict[str, Mapping[str, Any]]:
    found = json.loads((await stack.get(path)).content)[key]
    return {row[name]: row for row in found}


async def test_lists_say_where_a_model_is_and_what_is_loaded_there(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        stack.manager.overview.elsewhere = {"there": ModelLoad(LoadState.LOADED, "4096")}
        listed = await rows(stack, "/v1/models", "data", "id")
        assert "from" not in listed["here"]
        there = listed["there"]
        assert (there["from"], there["loaded"], there["loaded_variant"]) == ("box2", True, "4096")
        assert there["capabilities"] == ["completion", "tools"]
        own = await rows(stack, "/v1/models?own=true", "data", "id")
        # What a choice gives to another gateway might come back to the one that asks.
        assert set(own) == {"here", "own"}
        assert "chat/completions" in own["here"]["endpoints"]
        assert own["own"]["endpoints"] == own["here"]["endpoints"]
        assert "from" not in listed["any"]
        seen = await rows(stack, "/gateway/models", "models", "name")
        assert [(row["from"], row["state"]) for row in seen.values()] == [
            (None, "unloaded"),
            ("box2", "loaded"),
        ]
        failed = {"there": ModelLoad(LoadState.UNLOADED, has_failed=True)}
        stack.manager.overview.elsewhere = failed
        assert (await rows(stack, "/gateway/models", "models", "name"))["there"][
            "state"
        ] == "failed"


async def test_it_is_loaded_unloaded_and_pinned_there(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        for action in ("load", "unload", "pin"):
            refused = await stack.post(f"/gateway/models/there/{action}", b"")
            assert error_of(refused)["code"] == "model_is_elsewhere"


async def test_a_choice_goes_where_its_model_is_loaded(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        assert (await rows(stack, "/gateway/choices", "choices", "name"))["any"]["next"] == "here"
        stack.manager.overview.elsewhere = {"there": ModelLoad(LoadState.LOADED)}
        assert (await rows(stack, "/gateway/choices", "choices", "name"))["any"]["next"] == "there"


async def test_a_pin_outlives_what_comes_from_others_and_ends_with_a_reload(
    autojump_clock: Clock,
) -> None:
    async with running_stack(given()) as stack:
        await stack.post("/gateway/choices/any", b'{"use": "there"}')
        stack.gateway._take_over_peers(given(model("new", peer="box2")))
        assert (await rows(stack, "/gateway/choices", "choices", "name"))["any"]["use"] == "there"
        stack.gateway.take_over(given())
        assert (await rows(stack, "/gateway/choices", "choices", "name"))["any"]["use"] is None
