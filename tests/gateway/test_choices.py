"""A name for several models, through the whole gateway: who answers, and who is told what."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, header, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.choice_schema import ChoiceConfig, Member, Strategy
from trio_gateway.config.schema import GatewayConfig

SMALL, LARGE = model("small", variant(1024)), model("large", variant(8192), pool="secondary")


def choice(name: str, *members: str, **fields: Any) -> ChoiceConfig:
    named = tuple(Member(member.partition("@")[0].partition(":")[0], member) for member in members)
    return ChoiceConfig(name=name, members=named, **fields)


def given(*choices: ChoiceConfig, **server: Any) -> GatewayConfig:
    return msgspec.structs.replace(config(SMALL, LARGE, **server), choices=choices)


async def served(stack: Stack, body: bytes, path: str = CHAT) -> tuple[str, str]:
    response = await stack.post(path, body)
    assert response.status == 200, response.content
    return header(response, "x-gateway-model"), header(response, "x-gateway-choice")


async def test_loaded_goes_where_an_engine_runs_and_answers_have_the_name_that_was_asked_for(
    autojump_clock: Clock,
) -> None:
    async with running_stack(given(choice("coder", "small", "large"))) as stack:
        stack.engines.scripts = [[b'{"model":"x","choices":[]}']] * 4
        first = await served(stack, chat("coder"))
        assert first == ("small", "coder; loaded; none of their engines runs, and it comes first")
        await stack.post("/gateway/models/small/unload", b"")
        await stack.post(CHAT, chat("large"))
        response = await stack.post(CHAT, chat("coder:latest"))
        assert header(response, "x-gateway-model") == "large"
        assert header(response, "x-gateway-choice") == "coder; loaded; its engine runs"
        assert json.loads(response.content)["model"] == "coder:latest"
        rows = json.loads((await stack.get("/gateway/requests")).content)["requests"]
        assert (rows[0]["asked"], rows[0]["model"]) == ("coder:latest", "large")
        assert rows[0]["choice"] == "coder; loaded; its engine runs"


async def test_spill_takes_the_next_and_a_conversation_stays_where_it_was_read(
    autojump_clock: Clock,
) -> None:
    spill = choice("coder", "small", "large", strategy=Strategy.SPILL, spill_after=1)
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    async with running_stack(given(spill)) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 60.0, DONE], *([b"{}"] for _ in range(5))]
        nursery.start_soon(stream, stack, chat("coder", stream=True))
        await trio.sleep(20)
        there = {"X-Session-Id": "mine"}
        answer = await stack.post(CHAT, chat("coder"), there)
        assert header(answer, "x-gateway-model") == "large"
        answer = await stack.post(CHAT, chat("coder", messages=turns))
        assert header(answer, "x-gateway-model") == "large"
        await trio.sleep(60)
        for more in (there, {}):
            answer = await stack.post(CHAT, chat("coder", messages=turns), more)
            assert header(answer, "x-gateway-choice").startswith("coder; spill; it has read")
        assert (await served(stack, chat("coder")))[0] == "small"


FIRST = "it is the first that holds the need"
LAST = "none holds all that it asks for, and this one has the largest context"


@pytest.mark.parametrize(
    ("fields", "model", "why"),
    [
        ({}, "small", FIRST),
        ({"max_tokens": 4000}, "large", f"{FIRST}, and small cannot have it"),
        ({"max_tokens": 90000}, "large", LAST),
    ],
)
async def test_fits_takes_the_first_that_holds_the_request(
    autojump_clock: Clock, fields: dict[str, Any], model: str, why: str
) -> None:
    fits = choice("coder", "small", "large", strategy=Strategy.FITS)
    async with running_stack(given(fits)) as stack:
        assert await served(stack, chat("coder", **fields)) == (model, f"coder; fits; {why}")
        explained = await stack.post("/gateway/explain", chat("coder", **fields))
        found = json.loads(explained.content)
        assert (found["model"], found["choice"]) == (model, f"coder; fits; {why}")


@pytest.mark.parametrize("strategy", Strategy)
async def test_one_that_is_too_long_for_the_first_goes_to_one_that_holds_it_or_is_refused(
    autojump_clock: Clock, strategy: Strategy
) -> None:
    """As the largest says it, in any order."""
    async with running_stack(given(choice("coder", "large", "small", strategy=strategy))) as stack:
        await stack.post(CHAT, chat("small"))
        long = chat("coder", messages=[{"role": "user", "content": "word " * 3000}])
        assert (await served(stack, long))[0] == "large"
        longest = chat("coder", messages=[{"role": "user", "content": "word " * 30000}])
        response = await stack.post(CHAT, longest)
        assert response.status == 400
        assert error_of(response)["code"] == "context_length_exceeded"
        assert "8192" in error_of(response)["message"]


async def test_a_context_may_be_asked_for_and_nothing_else(autojump_clock: Clock) -> None:
    async with running_stack(given(choice("coder", "small", "large"))) as stack:
        assert (await served(stack, chat("coder@4096")))[0] == "large"
        for name, status, code in (
            ("coder@9000", 400, "context_not_found"),
            ("coder@x", 404, "model_not_found"),
            ("coder:small", 404, "model_not_found"),
            ("code", 404, "model_not_found"),
        ):
            response = await stack.post(CHAT, chat(name))
            assert (response.status, error_of(response)["code"]) == (status, code), name
            assert "coder" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("allowed", "model", "listed"),
    [({"large"}, "large", ["large", "coder"]), ({"other"}, None, ["other"])],
)
async def test_a_key_gets_those_of_its_models_that_it_may_use(
    autojump_clock: Clock, allowed: set[str], model: str | None, listed: list[str]
) -> None:
    key = ApiKey(name="k", secret="k" * 40, models=frozenset(allowed))
    access = AccessConfig(api_keys=(key,), allowed_hosts=("gateway",))
    base = given(choice("coder", "small", "large"), access=access)
    base = msgspec.structs.replace(base, models=(*base.models, OTHER))
    auth = {"Authorization": f"Bearer {'k' * 40}"}
    async with running_stack(base) as stack:
        response = await stack.post(CHAT, chat("coder"), auth)
        found = await stack.http.request("GET", "http://gateway/v1/models", headers=[*auth.items()])
        entries = json.loads(found.content)["data"]
        assert [entry["id"] for entry in entries] == listed
        if model is None:
            assert (response.status, error_of(response)["code"]) == (403, "model_not_allowed")
        else:
            assert header(response, "x-gateway-model") == model
            assert entries[-1]["choice"]["models"] == ["large"]


OTHER = model("other")


async def test_lists_show_it_as_one_model_with_the_contexts_of_all(autojump_clock: Clock) -> None:
    hidden = choice("secret", "small", hidden=True)
    both = choice("coder", "small", "large", description="Writes code.")
    async with running_stack(given(both, hidden)) as stack:
        entry = json.loads((await stack.get("/v1/models/coder")).content)
        assert entry["context_length"] == 8192
        assert (entry["contexts"], entry["description"]) == ([1024, 8192], "Writes code.")
        assert entry["choice"] == {"strategy": "loaded", "models": ["small", "large"]}
        tags = json.loads((await stack.get("/api/tags")).content)["models"]
        assert [tag["name"] for tag in tags] == ["small", "large", "coder"]
        assert len({tag["digest"] for tag in tags}) == 3
        shown = json.loads((await stack.post("/api/show", b'{"model":"coder:latest"}')).content)
        assert shown["model_info"]["general.basename"] == "coder"
        assert shown["context_length"] == 8192


async def test_a_pin_holds_until_it_is_taken_back_or_the_next_reload(autojump_clock: Clock) -> None:
    base = given(choice("coder", "small", "large"))

    async def use(name: str | None) -> dict[str, Any]:
        response = await stack.post("/gateway/choices/coder", json.dumps({"use": name}).encode())
        assert response.status == 200
        row: dict[str, Any] = json.loads(response.content)
        return row

    async with running_stack(base) as stack:
        row = await use("large")
        assert (row["use"], row["next"], row["why"]) == ("large", "large", "an admin has chosen it")
        assert (await served(stack, chat("coder")))[0] == "large"
        too_long = chat("coder", messages=[{"role": "user", "content": "word " * 3000}])
        await use("small")
        assert (await stack.post(CHAT, too_long)).status == 400
        assert (await use(None))["use"] is None
        await use("small")
        stack.gateway.take_over(base)
        rows = json.loads((await stack.get("/gateway/choices")).content)["choices"]
        assert [row["use"] for row in rows] == [None]
        for body, status in ((b'{"use":"other"}', 404), (b'{"use":3}', 400), (b"{}", 400)):
            assert (await stack.post("/gateway/choices/coder", body)).status == status
        assert (await stack.post("/gateway/choices/small", b'{"use":null}')).status == 404


async def test_those_that_cannot_are_left_out(autojump_clock: Clock) -> None:
    """One without the endpoint, one that serves vectors where a chat is wanted, and one that cannot
    see."""
    silent = model("silent", endpoints=frozenset({"embeddings"}))
    vectors = model("vectors", variant(args=("--embedding",)))
    blind = model("blind", variant(args=("-m", "x")))
    seeing = model("seeing", variant(args=("-m", "x", "--mmproj", "y")))
    base = config(silent, vectors, blind, seeing)
    names = ("silent", "vectors", "blind", "seeing")
    base = msgspec.structs.replace(base, choices=(choice("any", *names),))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with running_stack(base) as stack:
        assert (await served(stack, chat("any")))[0] == "blind"
        shown = chat("any", messages=[{"role": "user", "content": [image]}])
        assert (await served(stack, shown))[0] == "seeing"


async def test_reloads_bring_and_take_choices(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        assert (await stack.post(CHAT, chat("coder"))).status == 404
        stack.gateway.take_over(given(choice("coder", "large")))
        assert (await served(stack, chat("coder")))[0] == "large"
        stack.gateway.take_over(given(choice("coder", "small", "large@8000")))
        rows = json.loads((await stack.get("/gateway/models")).content)["models"]
        assert [row["choices"] for row in rows] == [["coder"], ["coder"]]
        assert (await served(stack, chat("coder")))[0] == "large"
        stack.gateway.take_over(given())
        assert (await stack.post(CHAT, chat("coder"))).status == 404


@pytest.mark.processes
@pytest.mark.untraced
async def test_a_large_request_is_tried_with_one_model_after_the_other() -> None:
    fits = choice("coder", "small", "large", strategy=Strategy.FITS)
    padding = "u" * 1_100_000
    messages = [{"role": "user", "content": "Hi"}]
    asked = {"model": "coder", "messages": messages, "stream": False}
    async with running_stack(given(fits)) as stack:
        stack.engines.load_s = 0.0
        answer = b'{"choices":[{"message":{"role":"assistant","content":"x"}}]}'
        stack.engines.scripts = [[answer] for _ in range(3)]
        for path, fields, model in (
            (CHAT, {"max_tokens": 8, "user": padding}, "small"),
            (CHAT, {"max_tokens": 4000, "user": padding}, "large"),
            ("/api/chat", {"options": {"num_predict": 4000}, "x": padding}, "large"),
        ):
            body = json.dumps({**asked, **fields}).encode()
            assert (await served(stack, body, path))[0] == model
        text = json.dumps({**asked, "messages": [{"role": "user", "content": "w " * 600_000}]})
        response = await stack.post(CHAT, text.encode())
        assert error_of(response)["code"] == "context_length_exceeded"
