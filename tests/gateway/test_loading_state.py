"""`loading_state = "reasoning"`: a stream that waits says as thoughts what it waits for."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import DONE, EVENT
from tests.support.optional import client_package
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.keepalive import KeepaliveStyle, LoadingState
from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.engine.errors import EngineLost
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

REASONING, NONE = LoadingState.REASONING, LoadingState.NONE
MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT, ANTHROPIC, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": MESSAGES},
    ANTHROPIC: {"messages": MESSAGES, "max_tokens": 9},
    OLLAMA: {"messages": MESSAGES},
    "/api/generate": {"prompt": "Hi"},
    "/v1/completions": {"prompt": "Hi"},
    "/completion": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}
SENTENCES = [
    "waits for m to load (1 s of about 12 s); expected in about 11 s",
    "waits for m to load (6 s of about 12 s); expected in about 6 s",
    "waits for m to load (11 s of about 12 s); expected in about 1 s",
]
THOUGHTS = [f"trio-gateway: {sentence}\n\n" for sentence in SENTENCES]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    value = {"id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1,
             "model": "m", "choices": [choice], **more}  # fmt: skip
    return f"data: {json.dumps(value)}\n\n".encode()


def event(**data: Any) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


AS_CHAT = [
    chunk({"role": "assistant", "content": None}),
    chunk({"reasoning_content": "Hm."}),
    chunk({"content": "Hello"}),
    chunk({"content": "!"}),
    chunk({}, "stop", usage={"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}),
    DONE,
]
START: dict[str, Any] = {
    "id": "msg_engine", "type": "message", "role": "assistant", "model": "m", "content": [],
    "stop_reason": None, "stop_sequence": None,
    "usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 0},
}  # fmt: skip
AS_MESSAGE = [
    event(type="message_start", message=START),
    event(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"}),
    event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "lo!"}),
    event(type="content_block_stop", index=0),
    event(
        type="message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 4},
    ),
    event(type="message_stop"),
]


@asynccontextmanager
async def waiting(
    *script: bytes | float,
    server: LoadingState = REASONING,
    own: LoadingState | None = None,
    **more: Any,
) -> AsyncIterator[Stack]:
    """An engine that takes 12 s to load."""
    timeouts = EngineTimeouts(startup_s=more.pop("startup_s", 60.0))
    one = model("m", variant(load_time_s=12.0, timeouts=timeouts), loading_state=own)
    async with running_stack(config(one, loading_state=server, **more)) as stack:
        stack.engines.load_s = 12.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        stack.engines.scripts = [[*script]]
        yield stack


async def answer(stack: Stack, path: str, headers: dict[str, str] | None = None) -> bytes:
    body = json.dumps({"model": "m", "stream": True, **BODIES[path]}).encode()
    given = [*(headers or {}).items()]
    url = f"http://gateway{path}"
    async with stack.http.stream("POST", url, content=body, headers=given) as response:
        assert response.status == 200
        return b"".join([piece async for piece in response.aiter_stream()])


def data_of(stream: bytes) -> list[dict[str, Any]]:
    lines = [line for line in stream.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def comments_of(stream: bytes) -> list[str]:
    return [line for line in stream.decode().splitlines() if line.startswith(": ")]


@contextmanager
def replayed(answer: bytes, kind: str) -> Iterator[str]:
    """A server whose every answer to a POST this is, for clients that run under no trio."""

    class Replay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Replay) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# -- chats -----------------------------------------------------------------------------------


async def test_a_chat_that_waits_thinks_what_it_waits_for_and_then_gets_its_answer(
    autojump_clock: Clock,
) -> None:
    async with waiting(*AS_CHAT) as stack:
        got = await answer(stack, CHAT)
    said = data_of(got)[:3]
    assert [c["choices"][0]["delta"] for c in said] == [{"reasoning_content": t} for t in THOUGHTS]
    assert all(c["object"] == "chat.completion.chunk" and c["model"] == "m" for c in said)
    assert len(comments_of(got)) == 1  # what would have been in the headers
    assert got.endswith(b"".join(AS_CHAT))


@pytest.mark.processes  # it asks the system what it is
async def test_openai_s_own_client_puts_it_together(autojump_clock: Clock) -> None:
    async with waiting(*AS_CHAT) as stack:
        got = await answer(stack, CHAT)
    openai = client_package("openai")
    with (
        replayed(got, "text/event-stream") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client,
        client.chat.completions.stream(model="m", messages=MESSAGES) as stream,
    ):
        completion = stream.get_final_completion()
    message = completion.choices[0].message
    assert (message.role, message.content) == ("assistant", "Hello!")
    assert message.reasoning_content == "".join(THOUGHTS) + "Hm."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens == 4


async def test_an_error_while_it_waits_ends_it(autojump_clock: Clock) -> None:
    async with waiting(startup_s=8.0) as stack:
        got = await answer(stack, CHAT)
    *said, last = data_of(got)
    assert len(said) == 2
    assert last["error"]["code"] == "engine_startup_timeout"
    assert b"[DONE]" not in got


async def test_what_is_not_news_is_a_comment(autojump_clock: Clock) -> None:
    """Before anything was measured, a wait for a place says the same each time."""
    one = model("m", variant(parallel=1))
    given = config(one, loading_state=REASONING)
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[30.0, b"{}"], [*AS_CHAT]]
        body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
        nursery.start_soon(stack.post, CHAT, body)
        await trio.sleep(2)
        got = await answer(stack, CHAT)
    sentence = "waits for a free place of m: 1 answer is running"
    said = [c["choices"][0]["delta"] for c in data_of(got) if c["id"] != "chatcmpl-engine"]
    assert said == [{"reasoning_content": f"trio-gateway: {sentence}\n\n"}]
    assert comments_of(got)[:2] == [f": {sentence}"] * 2


async def test_what_is_not_news_is_no_comment_where_none_are_wanted(autojump_clock: Clock) -> None:
    given = config(
        model("m", variant(parallel=1)),
        loading_state=REASONING,
        stream_keepalive_style=KeepaliveStyle.DATA,
    )
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[40.0, b"{}"], [*AS_CHAT]]
        body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
        nursery.start_soon(stack.post, CHAT, body)
        await trio.sleep(2)
        got = await answer(stack, CHAT)
    said = [c["choices"][0]["delta"] for c in data_of(got) if c["id"] != "chatcmpl-engine"]
    assert "reasoning_content" in said[0]
    assert said[1:] == [{}] * (len(said) - 1) != []
    assert comments_of(got) == []


async def test_who_is_answered_at_once_thinks_nothing(autojump_clock: Clock) -> None:
    async with waiting(*AS_CHAT) as stack:
        stack.engines.load_s = 0.5
        assert await answer(stack, CHAT) == b"".join(AS_CHAT)


# -- who wants it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "own", "thinks"),
    [(NONE, None, False), (NONE, REASONING, True), (REASONING, None, True),
     (REASONING, NONE, False)],
)  # fmt: skip
async def test_a_model_has_it_as_the_server_unless_it_says_so_itself(
    autojump_clock: Clock, server: LoadingState, own: LoadingState | None, thinks: bool
) -> None:
    async with waiting(EVENT, DONE, server=server, own=own) as stack:
        assert (b"reasoning_content" in await answer(stack, CHAT)) is thinks


async def test_a_client_asks_for_it_or_for_something_else(autojump_clock: Clock) -> None:
    header = "X-Gateway-Keepalive"
    async with waiting(EVENT, DONE, server=NONE) as stack:
        assert b"reasoning_content" in await answer(stack, CHAT, {header: "reasoning"})
    async with waiting(EVENT, DONE, stream_keepalive_s=5.0) as stack:
        got = await answer(stack, CHAT, {header: "comment"})
        assert b"reasoning_content" not in got
        assert got.startswith(b": waits for m")


async def test_it_is_said_where_streams_wait_in_silence_otherwise(autojump_clock: Clock) -> None:
    async with waiting(EVENT, DONE, stream_keepalive_s=0.0) as stack:
        assert b"reasoning_content" in await answer(stack, CHAT)


@pytest.mark.parametrize("path", ["/v1/completions", "/completion", "/v1/responses"])
async def test_where_there_is_no_place_for_thoughts_there_are_comments(
    autojump_clock: Clock, path: str
) -> None:
    async with waiting(EVENT, DONE, stream_keepalive_s=10.0) as stack:
        got = await answer(stack, path)
    assert comments_of(got)[0].startswith(": waits for m to load (10 s of about 12 s)")
    assert b"reasoning" not in got
    assert got.endswith(EVENT + DONE)


# -- messages --------------------------------------------------------------------------------


async def test_a_message_has_its_thoughts_in_a_block_that_is_closed_before_the_answer(
    autojump_clock: Clock,
) -> None:
    async with waiting(*AS_MESSAGE) as stack:
        got = await answer(stack, ANTHROPIC)
    events = data_of(got)
    assert [e["type"] for e in events] == [
        "message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "content_block_start", *["content_block_delta"] * 2, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert [e["index"] for e in events if "index" in e] == [0] * 5 + [1] * 4
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert [e["delta"]["thinking"] for e in events[2:5]] == THOUGHTS
    assert events[-2]["usage"] == {**START["usage"], "output_tokens": 4}


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_in_whatever_pieces_an_engine_sends_it(autojump_clock: Clock, size: int) -> None:
    whole = b"".join(AS_MESSAGE)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    async with waiting(*AS_MESSAGE) as stack:
        expected = data_of(await answer(stack, ANTHROPIC))
    async with waiting(*pieces) as stack:
        got = data_of(await answer(stack, ANTHROPIC))
    expected[0]["message"]["id"] = got[0]["message"]["id"]
    assert got == expected


@pytest.mark.processes
async def test_anthropic_s_own_client_puts_it_together(autojump_clock: Clock) -> None:
    async with waiting(*AS_MESSAGE) as stack:
        got = await answer(stack, ANTHROPIC)
    anthropic = client_package("anthropic")
    with (
        replayed(got, "text/event-stream") as url,
        anthropic.Anthropic(base_url=url, api_key="x") as client,
        client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream,
    ):
        message = stream.get_final_message()
    thought, text = message.content
    assert (thought.thinking, text.text) == ("".join(THOUGHTS), "Hello!")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 4)
    assert message.usage.cache_read_input_tokens == 5
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("status", [None, 500], ids=["none starts", "the engine's own"])
async def test_an_error_comes_after_the_block_was_closed(
    autojump_clock: Clock, status: int | None
) -> None:
    async with waiting(startup_s=8.0 if status is None else 60.0) as stack:
        if status is not None:
            stack.engines.statuses = [status]
        *_, stop, last = data_of(await answer(stack, ANTHROPIC))
    assert stop == {"type": "content_block_stop", "index": 0}
    assert last["type"] == "error"


async def test_one_that_somebody_ends_while_it_waits_has_its_block_closed(
    autojump_clock: Clock,
) -> None:
    async with waiting() as stack, trio.open_nursery() as nursery:
        got = b""

        async def ask() -> None:
            nonlocal got
            got = await answer(stack, ANTHROPIC)

        nursery.start_soon(ask)
        await trio.sleep(4)
        (live,) = stack.gateway.book.live
        assert (await stack.post(f"/gateway/requests/{live}/cancel", b"")).status == 200
    *_, stop, last = data_of(got)
    assert stop == {"type": "content_block_stop", "index": 0}
    assert "cancelled" in last["error"]["message"]


async def test_a_message_that_breaks_off_ends_with_an_error(autojump_clock: Clock) -> None:
    got = b""
    script: tuple[bytes | float, ...] = (*AS_MESSAGE[:3], AS_MESSAGE[3][:40], 10.0)
    async with waiting(*script) as stack, trio.open_nursery() as nursery:

        async def ask() -> None:
            nonlocal got
            got = await answer(stack, ANTHROPIC)

        nursery.start_soon(ask)
        await trio.sleep(15)
        stack.engines.exchanges[0].abort(EngineLost("the connection broke"))
        stack.engines.alive[0].exit("was killed by signal 9")
    (last,) = data_of(got.split(b"\n\n")[-2])
    assert last["type"] == "error"
    assert "was killed by signal 9" in last["error"]["message"]
    assert b"message_stop" not in got


async def test_what_an_engine_sent_of_an_event_at_its_end_is_not_lost(
    autojump_clock: Clock,
) -> None:
    async with waiting(*AS_MESSAGE, b"event: more") as stack:
        assert (await answer(stack, ANTHROPIC)).endswith(b"event: more")


# -- Ollama ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [OLLAMA, "/api/generate"])
async def test_ollama_s_lines_have_it_as_thinking(autojump_clock: Clock, path: str) -> None:
    async with waiting(*AS_CHAT) as stack:
        lines = [json.loads(line) for line in (await answer(stack, path)).splitlines()]
    said = [line.get("message", line).get("thinking") for line in lines]
    assert said[:3] == THOUGHTS
    texts = [line.get("message", {}).get("content", line.get("response")) for line in lines]
    assert "".join(filter(None, texts)) == "Hello!"
    assert (lines[-1]["done"], lines[-1]["eval_count"]) == (True, 4)
    assert not any(line["done"] for line in lines[:-1])


async def test_ollama_s_own_client_takes_it(autojump_clock: Clock) -> None:
    async with waiting(*AS_CHAT) as stack:
        got = await answer(stack, OLLAMA)
    ollama = client_package("ollama")
    with replayed(got, "application/x-ndjson") as url:
        client = ollama.Client(host=url)
        parts = [*client.chat(model="m", messages=MESSAGES, stream=True)]
    assert "".join(part.message.thinking or "" for part in parts) == "".join(THOUGHTS) + "Hm."
    assert "".join(part.message.content or "" for part in parts) == "Hello!"
    assert parts[-1].done


# -- what clients send back ------------------------------------------------------------------


HELLO = {"type": "text", "text": "Hello!"}


@pytest.mark.parametrize(
    ("path", "said", "left"),
    [
        (CHAT, {"content": "Hello!", "reasoning_content": "".join(THOUGHTS) + 'H"m.\n'},
         {"content": "Hello!", "reasoning_content": 'H"m.\n'}),
        (CHAT, {"content": "Hello!", "reasoning_content": "".join(THOUGHTS).strip()},
         {"content": "Hello!", "reasoning_content": ""}),
        (ANTHROPIC, {"content": [{"type": "thinking", "thinking": "".join(THOUGHTS),
                                  "signature": ""}, HELLO]}, {"content": [HELLO]}),
        (ANTHROPIC, {"content": [{"type": "thinking", "thinking": THOUGHTS[0]}]},
         {"content": [{"type": "text", "text": ""}]}),
        (OLLAMA, {"content": "Hello!", "thinking": THOUGHTS[0] + "Hm."},
         {"content": "Hello!", "reasoning_content": "Hm."}),
    ],
)  # fmt: skip
async def test_no_model_reads_what_was_said_in_its_name(
    autojump_clock: Clock, path: str, said: dict[str, Any], left: dict[str, Any]
) -> None:
    quoted = {"role": "user", "content": f"{THOUGHTS[0]} What is that?"}
    turns = [*MESSAGES, {"role": "assistant", **said}, quoted]
    async with waiting(b'{"choices":[{"message":{"content":"x"}}]}') as stack:
        body = {"model": "m", "stream": False, **BODIES[path], "messages": turns}
        assert (await stack.post(path, json.dumps(body).encode())).status == 200
        sent = json.loads(stack.engines.requests[-1][2])["messages"]
    assert sent[1] == {"role": "assistant", **left}
    assert sent[2] == quoted  # the user's own words are left alone
