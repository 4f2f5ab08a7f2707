"""Ollama's endpoints through the whole gateway, over memory streams, with fake engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpcore
import httpx
import ollama
import pytest
import trio
import trio.testing

from tests.support.asking import DONE, Clock, header
from tests.support.fakes import FakeClient, FakeExchange, FakeKind
from tests.support.gguf_files import write_bpe
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.handlers.call import Call

ANSWER = json.dumps(
    {
        "model": "file.gguf",
        "choices": [{"index": 0, "message": {"content": "Hi!"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
).encode()
VECTORS = b'{"data":[{"index":0,"embedding":[3.0,4.0]}],"usage":{"prompt_tokens":2}}'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def token(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


def chat(name: str = "m", **fields: Any) -> bytes:
    return json.dumps(
        {"model": name, "messages": [{"role": "user", "content": "Hi"}], **fields}
    ).encode()


def load(name: str = "m", **fields: Any) -> bytes:
    return json.dumps({"model": name, **fields}).encode()


def lines(content: bytes) -> list[dict[str, Any]]:
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def error_of(response: httpcore.Response) -> str:
    body = json.loads(response.content)
    assert set(body) == {"error"}
    return str(body["error"])


async def until_gone(stack: Stack) -> None:
    """Until no engine is left: its end is nobody's request, so nobody waits for it."""
    with trio.fail_after(60):
        for process in stack.engines.alive:
            await process.exited.wait()


# -- answers -------------------------------------------------------------------------------------


async def test_a_chat_goes_to_the_engine_as_an_openai_call(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER]]
        response = await stack.post(
            "/api/chat",
            chat("m:latest", stream=False, options={"num_predict": 8, "temperature": 0}),
            {"Content-Type": "application/x-www-form-urlencoded"},  # what curl sends
        )
        assert response.status == 200
        assert header(response, "Content-Type") == "application/json; charset=utf-8"
        assert header(response, "X-Gateway-Variant") == "4096"
        answer = json.loads(response.content)
        assert answer["model"] == "m:latest"
        assert answer["message"] == {"role": "assistant", "content": "Hi!"}
        assert (answer["done_reason"], answer["eval_count"]) == ("stop", 2)
        assert answer["load_duration"] == pytest.approx(1e9, rel=0.2)  # the fake engine's load
        ((target, headers, body),) = stack.engines.requests
        assert (target, headers[b"content-type"]) == ("/v1/chat/completions", b"application/json")
        assert json.loads(body) == {
            "model": "m:latest",  # as on every endpoint: what the client calls it
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 8,
            "temperature": 0,
        }


async def test_a_stream_arrives_line_by_line_as_it_comes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=0.0)) as stack:
        first = token("a") + b"\n\n"
        stack.engines.scripts = [[first, 2.0, first + first[:20], 3.0, first[20:], END, DONE]]
        async with stack.http.stream("POST", "http://gateway/api/chat", content=chat()) as response:
            assert header(response, "Content-Type") == "application/x-ndjson"
            pieces = [(trio.current_time(), p) async for p in response.aiter_stream()]
        times = [at - pieces[0][0] for at, _ in pieces]
        assert times == pytest.approx([0, 2, 5, 5], abs=0.1)
        assert all(lines(piece) for _, piece in pieces)
        last = lines(pieces[-1][1])[-1]
        assert last["done"]
        assert last["eval_duration"] == pytest.approx(5e9, rel=0.1)


async def test_a_stream_that_waits_is_kept_alive_by_lines_without_text(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=10.0)) as stack:
        stack.engines.load_s = 35
        stack.engines.scripts = [[token("a") + b"\n\n", END, DONE]]
        response = await stack.post("/api/generate", load(prompt="Hi"))
        found = lines(response.content)
        assert [line["response"] for line in found] == ["", "", "", "", "a", ""]
        assert [line["done"] for line in found] == [False] * 5 + [True]
        assert found[-1]["load_duration"] == pytest.approx(35e9, rel=0.05)


async def test_an_engine_that_dies_ends_the_stream_with_an_error(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[token("a") + b"\n\n", 60.0]]
        async with stack.http.stream("POST", "http://gateway/api/chat", content=chat()) as response:
            pieces = []
            async for piece in response.aiter_stream():
                pieces.append(piece)
                stack.engines.processes[0].exit("was killed by signal 11")
        *_, last = lines(b"".join(pieces))
        assert last.keys() == {"error", "engine_output"}
        assert "signal 11" in last["error"]
        assert last["engine_output"] == ["the fake engine's last line"]


async def test_an_error_after_a_long_wait_is_the_last_line(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=10.0)) as stack:
        stack.engines.load_s = 35
        stack.engines.statuses, stack.engines.scripts = [500], [[b'{"error":{"message":"bad"}}']]
        response = await stack.post("/api/chat", chat())
        assert response.status == 200
        assert lines(response.content)[-1] == {"error": "bad"}


async def test_an_engine_s_own_error_keeps_its_status(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for stream in (True, False):
            stack.engines.statuses = [501]
            stack.engines.scripts = [[b'{"error":{"code":501,"message":"no infill"}}']]
            response = await stack.post("/api/chat", chat(stream=stream))
            assert (response.status, error_of(response)) == (501, "no infill")


async def test_an_answer_that_is_not_streamed_is_lines_all_the_same(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER]]
        monkeypatch.setattr(FakeExchange, "__init__", _never_streams)
        response = await stack.post("/api/chat", chat())
        text, last = lines(response.content)
        assert (text["message"]["content"], last["done"]) == ("Hi!", True)


_init = FakeExchange.__init__


def _never_streams(self: FakeExchange, client: FakeClient, script: Any, *_: object) -> None:
    _init(self, client, script, 200, stream=False)


CALL = {"index": 0, "id": "x1", "function": {"name": "get_weather", "arguments": '{"city":'}}


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: 3 degrees"


async def test_the_ollama_client_gets_tool_calls(autojump_clock: Clock) -> None:
    """With a scripted engine: the small model of the real tests is not trained for tools."""

    def part(**delta: Any) -> bytes:
        return (
            b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        )

    rest = {"index": 0, "function": {"arguments": '"Graz"}'}}
    whole = {"id": "x1", "function": {"name": "get_weather", "arguments": '{"city":"Graz"}'}}
    choice = {"index": 0, "message": {"tool_calls": [whole]}, "finish_reason": "tool_calls"}
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [
            [part(content=None, tool_calls=[CALL]), part(tool_calls=[rest]), END, DONE],
            [json.dumps({"choices": [choice]}).encode()],
            [ANSWER],
        ]
        transport = httpx.AsyncHTTPTransport(trust_env=False)
        monkey: Any = transport
        monkey._pool = stack.http  # the gateway in memory
        ask = ollama.Message(role="user", content="What is the weather in Graz?")
        async with ollama.AsyncClient("http://gateway", transport=transport) as client:
            stream = await client.chat("m", [ask], tools=[get_weather], stream=True)
            parts = [part async for part in stream]
            once = await client.chat("m", [ask], tools=[get_weather])
            for message in (parts[0].message, once.message):
                assert message.tool_calls is not None
                (call,) = message.tool_calls
                assert (call.function.name, call.function.arguments) == (
                    "get_weather", {"city": "Graz"},
                )  # fmt: skip
            assert (len(parts), parts[1].done_reason) == (2, "stop")
            said = ollama.Message(role="tool", tool_name="get_weather", content="3 degrees")
            await client.chat("m", [ask, once.message, said], tools=[get_weather])
        sent = json.loads(stack.engines.requests[-1][2])
        assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"]
        assert sent["tools"][0]["function"]["parameters"]["required"] == ["city"]


async def test_generate_raw_and_embeddings_have_their_own_calls(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = frozenset({"chat/completions", "completions", "embeddings", "infill"})
    monkeypatch.setattr(FakeKind, "endpoints", served)
    async with running_stack(config(model("m"))) as stack:
        text = b'{"choices":[{"text":"Hi!","finish_reason":"length"}]}'
        stack.engines.scripts = [
            [text], [VECTORS], [VECTORS], [b'{"content":"x","stop":true}']
        ]  # fmt: skip
        raw = await stack.post("/api/generate", load(prompt="<s>", raw=True, stream=False))
        assert json.loads(raw.content)["response"] == "Hi!"
        embed = await stack.post("/api/embed", load(input=["a"], dimensions=1))
        assert json.loads(embed.content)["embeddings"] == [[1.0]]
        old = await stack.post("/api/embeddings", load(prompt="a"))
        assert json.loads(old.content) == {"embedding": [3.0, 4.0]}
        middle = await stack.post("/api/generate", load(prompt="a", suffix="b", stream=False))
        assert json.loads(middle.content)["response"] == "x"
        targets = [target for target, _, _ in stack.engines.requests]
        assert targets == ["/v1/completions", "/v1/embeddings", "/v1/embeddings", "/infill"]


async def test_num_ctx_is_a_wish_for_the_variant(autojump_clock: Clock) -> None:
    two = config(model("m", variant(2048), variant(8192)))
    for wish, expected in ((0, "2048"), (1000, "2048"), (4096, "8192"), (100_000, "8192")):
        async with running_stack(two) as stack:
            stack.engines.scripts = [[ANSWER]]
            body = chat(stream=False, options={"num_ctx": wish, "num_predict": 8})
            response = await stack.post("/api/chat", body)
            assert header(response, "X-Gateway-Variant") == expected
        async with running_stack(two) as stack:
            await stack.post("/api/chat", load(options={"num_ctx": wish}))
            (engine,) = stack.manager.engines.values()
            assert engine.variant.name == expected


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/chat", b"{", 400, "not a JSON object"),
        ("/api/chat", b'{"messages":[]}', 400, "model"),
        ("/api/chat", chat("nobody"), 404, 'no model "nobody"'),
        ("/api/chat", load("nobody:latest"), 404, 'no model "nobody"'),
        ("/api/generate", load("nobody", keep_alive=0), 404, 'no model "nobody"'),
        ("/api/show", load("nobody"), 404, 'no model "nobody"'),
        ("/api/show", b"", 400, "empty"),
        ("/api/chat", chat("m:9999"), 404, "no variant"),
        ("/api/chat", chat(options={"seed": "x"}), 400, "`seed`"),
        ("/api/embed", load(input="x"), 400, "does not serve embeddings"),
        ("/api/chat", chat() + b" " * 2000, 413, "larger than 2000 bytes"),
        ("/api/nothing", b"{}", 404, "no such path"),
        ("/api/tags", b"{}", 405, "GET"),
    ],
)
async def test_errors_have_ollama_s_shape(
    autojump_clock: Clock, path: str, body: bytes, status: int, message: str
) -> None:
    async with running_stack(config(model("m"), max_body_bytes=2000)) as stack:
        response = await stack.post(path, body)
        assert response.status == status
        assert message in error_of(response)
        assert not stack.engines.requests


async def test_a_prompt_too_long_is_refused_before_anything_is_loaded(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(512)))) as stack:
        body = json.dumps({"model": "m", "prompt": "word " * 1000}).encode()
        response = await stack.post("/api/generate", body)
        assert response.status == 400
        assert "512" in error_of(response)
        assert not stack.engines.processes


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:1234"),
    ],
)
async def test_models_cannot_be_changed(autojump_clock: Clock, method: str, path: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        response = await stack.http.request(method, f"http://gateway{path}", content=load())
        assert response.status == 501
        assert "configuration" in error_of(response)


# -- keep_alive ----------------------------------------------------------------------------------


async def test_a_request_without_content_loads_and_one_with_0_unloads(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        for path in ("/api/chat", "/api/generate"):
            response = await stack.post(path, load())
            answer = json.loads(response.content)
            assert (answer["done"], answer["done_reason"]) == (True, "load")
            assert len(stack.engines.alive) == 1
            response = await stack.post(path, load("m:latest", keep_alive=0))
            answer = json.loads(response.content)
            assert (answer["model"], answer["done_reason"]) == ("m:latest", "unload")
            await until_gone(stack)
        assert not stack.engines.requests


async def test_keep_alive_0_unloads_after_the_answer(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[token("a") + b"\n\n", 5.0, END, DONE]]
        response = await stack.post("/api/chat", chat(keep_alive="0s"))
        assert lines(response.content)[-1]["done"]
        await until_gone(stack)
        # It was for this request only.
        stack.engines.scripts = [[ANSWER]]
        await stack.post("/api/chat", chat(stream=False))
        await trio.sleep(200)
        assert len(stack.engines.alive) == 1


async def test_keep_alive_is_the_time_that_a_model_stays_idle(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post("/api/generate", load(keep_alive="10m"))
        await trio.sleep(590)
        assert len(stack.engines.alive) == 1
        await trio.sleep(20)
        assert not stack.engines.alive


async def test_keep_alive_minus_1_pins_until_another_time_is_said(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("other"))) as stack:
        stack.engines.scripts = [[ANSWER]] * 4
        await stack.post("/api/chat", chat(stream=False, keep_alive=-1))
        assert stack.manager.overview.is_pinned("m")
        await trio.sleep(80_000)
        assert len(stack.engines.alive) == 1
        await stack.post("/api/chat", chat(stream=False))
        assert stack.manager.overview.is_pinned("m")  # nothing was said of it
        await stack.post("/api/chat", chat(stream=False, keep_alive=60))
        assert not stack.manager.overview.is_pinned("m")
        await trio.sleep(70)
        assert not stack.engines.alive


async def test_a_request_that_is_refused_keeps_nothing(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", variant(512)))) as stack:
        body = json.dumps({"model": "m", "prompt": "word " * 1000, "keep_alive": -1}).encode()
        assert (await stack.post("/api/generate", body)).status == 400
        assert not stack.manager.overview.is_pinned("m")


# -- models --------------------------------------------------------------------------------------


def on_file(folder: Path) -> GatewayConfig:
    write_bpe(folder, template="{{ tools }}")
    args = ("-m", "m.gguf")
    return config(
        model("m", variant(2048), variant(8192, args=args, workdir=folder)),
        model("gone", variant(args=("-m", "/no/such.gguf"))),
        model("secret", hidden=True),
    )


@pytest.mark.processes
async def test_models_are_listed_with_what_their_files_say(tmp_path: Path) -> None:
    async with running_stack(on_file(tmp_path)) as stack:
        for _ in range(2):  # read, and kept
            listed = json.loads((await stack.get("/api/tags")).content)["models"]
            assert [m["name"] for m in listed] == ["m", "gone"]
            assert listed[0]["size"] == (tmp_path / "m.gguf").stat().st_size
            assert listed[0]["details"]["family"] == "llama"
            assert (listed[1]["size"], listed[1]["details"]["family"]) == (0, "")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "context"), [("m", 8192), ("m:latest", 8192), ("m:2048", 2048), ("m@100", 2048)]
)
async def test_a_model_is_shown_with_the_context_that_was_asked_for(
    tmp_path: Path, name: str, context: int
) -> None:
    async with running_stack(on_file(tmp_path)) as stack:
        for field in ("model", "name"):
            response = await stack.post("/api/show", json.dumps({field: name}).encode())
            shown = json.loads(response.content)
            assert shown["model_info"]["llama.context_length"] == context
            assert shown["capabilities"] == ["completion", "tools"]


async def test_engines_are_listed_while_they_are_ready() -> None:
    two = config(model("m", variant(8192, memory_bytes=1000)), model("n"), pools={"primary": 2})
    async with running_stack(two) as stack:
        stack.engines.load_s = 0
        assert json.loads((await stack.get("/api/ps")).content) == {"models": []}
        await stack.post("/api/generate", load("m", keep_alive=-1))
        await stack.post("/api/generate", load("n", keep_alive=3600))
        first, second = json.loads((await stack.get("/api/ps")).content)["models"]
        assert (first["name"], first["size"], first["context_length"]) == ("m", 1000, 8192)
        assert first["expires_at"].startswith("2318")
        assert (second["name"], second["context_length"]) == ("n", 4096)
        assert not second["expires_at"].startswith("2318")
        async with stack.manager.lease(two.models[0], 1):
            stack.manager.begin_unload("m")  # it drains from now on
            (only,) = json.loads((await stack.get("/api/ps")).content)["models"]
            assert only["name"] == "n"


async def test_what_clients_ask_for_first(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        version = json.loads((await stack.get("/api/version")).content)
        assert set(version) == {"version", "trio_gateway"}
        response = await stack.http.request("HEAD", "http://gateway/")
        assert (response.status, response.content) == (200, b"")
        assert (await stack.get("/")).content == b"Ollama is running"


async def test_requests_are_dumped_as_they_came(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumped: list[tuple[str, bytes]] = []

    def begin_dump(_: Call, endpoint: Endpoint, body: Sequence[bytes]) -> None:
        dumped.append((endpoint.name, b"".join(body)))

    monkeypatch.setattr(Call, "begin_dump", begin_dump)
    async with running_stack(config(model("m"))) as stack:
        await stack.post("/api/chat", chat())
    assert dumped == [("api/chat", chat())]
