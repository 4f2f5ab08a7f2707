"""Large bodies: read in a process of their own, answered as small ones are, and in nobody's way."""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import psutil
import pytest
import trio

from tests.support.asking import CHAT, Clock, error_of, header
from tests.support.fakes import FakeClient, FakeKind
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.schema import GatewayConfig, RewriteConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.server.reading import readers
from trio_gateway.server.reading.messages import Body, Translation

MIB = 1 << 20
LARGEST = 16 * MIB  # what grows with the size is 0.4 s of CPU at 64 MiB if it is GAP_S here
GAP_S = 0.1  # of the loop's own CPU time, which takes twice as long where others share the core


@pytest.fixture(autouse=True)
def _all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)


def given(**fields: Any) -> GatewayConfig:
    contexts = (variant(2048), variant(8192), variant(100_000))
    return config(model("m", *contexts, **fields), max_body_bytes=2 * LARGEST)


async def send(stack: Stack, path: str, body: bytes) -> httpcore.Response:
    """As a client does: in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]
            await trio.lowlevel.checkpoint()

    length = [("Content-Length", str(len(body)))]
    url = f"http://gateway{path}"
    return await stack.http.request("POST", url, content=pieces(), headers=length)


def asked(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def says(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


# -- in nobody's way -------------------------------------------------------------------------------


class Watch:
    """The most CPU time that the loop's thread took between two looks at it."""

    longest_s = 0.0

    async def run(self) -> None:
        last = time.thread_time()
        while True:
            await trio.sleep(0.001)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now


def filled(start: bytes, unit: bytes, end: bytes, between: bytes = b",") -> Callable[[int], bytes]:
    """As many of the units as make a body of so many bytes."""

    def body(size: int) -> bytes:
        count = size // len(unit + between)
        return b"".join((start, (unit + between) * (count - 1), unit, end))

    return body


def keys(size: int) -> bytes:
    names = b'":1,"'.join(map(b"%d".__mod__, range(size // 11)))
    return b"".join((HI, b'"', names, b'":1}'))


SAID = b'{"model":"m","messages":[{"role":"user","content":'
HI = SAID + b'"Hi"}],'
SHAPES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "text": (CHAT, filled(SAID + b'"', b"some words, ", b'"}]}', b"")),
    "words": (CHAT, filled(SAID + b'"', b"word ", b'"}]}', b"")),
    "escapes": (CHAT, filled(SAID + b'"', rb"\u00e4\"\\", b'"}]}', b"")),
    "blanks": (CHAT, filled(HI, b" ", b'"x":1}', b"")),
    "digits in a text": (CHAT, filled(HI + b'"x":"', b"1" * 307 + b"a", b'"}', b"")),
    "digits": (CHAT, filled(HI + b'"x":', b"1", b"}", b"")),
    "numbers": (CHAT, filled(HI + b'"x":[', b"1" * 300, b"]}")),
    "keys": (CHAT, keys),
    "a long key": (CHAT, filled(HI + b'"', b"k", b'":1}', b"")),
    "keys of an object": (CHAT, filled(HI + b'"metadata":{', b'"k":1', b"}}")),
    "parts": (CHAT, filled(SAID + b"[", b'{"type":"text","text":"a"}', b"]}]}")),
    "texts as parts": (CHAT, filled(SAID + b"[", b'"a"', b"]}]}")),
    "empty parts": (CHAT, filled(SAID + b"[", b"{}", b"]}]}")),
    "nested": (
        CHAT, filled(HI[:-3] + b',"x":' + b"[" * 400, b"[]", b"]" * 400 + b"}]}"),
    ),
    "brackets": (CHAT, filled(HI + b'"x":', b"[", b"}", b"")),
    "messages": (CHAT, filled(b'{"model":"m","messages":[', b'{"role":"user"}', b"]}")),
    "tools": (CHAT, filled(HI + b'"tools":[', b'{"type":"function"}', b"]}")),
    "a tool's schema": (
        CHAT, filled(HI + b'"tools":[{"function":{"parameters":{"enum":[', b'"a"', b"]}}}]}"),
    ),
    "images": (
        CHAT,
        filled(
            SAID + b"[",
            b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}' % (b"A" * 9_000),
            b"]}]}",
        ),
    ),
    "token ids": ("/v1/completions", filled(b'{"model":"m","prompt":[', b"1", b"]}")),
    "prompts": ("/v1/completions", filled(b'{"model":"m","prompt":[', b'"a b"', b"]}")),
    "prompts of ids": ("/v1/completions", filled(b'{"model":"m","prompt":[', b"[1]", b"]}")),
    "inputs": ("/v1/embeddings", filled(b'{"model":"m","input":[', b'"%b"' % (b"a " * 900), b"]}")),
    "documents": (
        "/v1/rerank",
        filled(b'{"model":"m","query":"%b","documents":[' % (b"q " * 10_000), b'"d"', b"]}"),
    ),
    "long documents": (
        "/v1/rerank",
        filled(b'{"model":"m","query":"q","documents":[', b'"%b"' % (b"d " * 900), b"]}"),
    ),
    "items": ("/v1/responses", filled(b'{"model":"m","input":[', b'{"role":"user"}', b"]}")),
    "blocks": ("/v1/messages", filled(SAID + b"[", b'{"type":"text"}', b']}],"max_tokens":1}')),
    "a system": ("/v1/messages", filled(HI + b'"system":"', b"be kind ", b'"}', b"")),
    "fragments": ("/infill", filled(b'{"model":"m","input_prefix":"', b"a ", b'"}', b"")),
    "content": ("/tokenize", filled(b'{"model":"m","content":"', b"a ", b'"}', b"")),
    "ids": ("/detokenize", filled(b'{"model":"m","tokens":[', b"1", b"]}")),
    "Ollama's text": ("/api/chat", filled(SAID + b'"', b"word ", b'"}]}', b"")),
    "Ollama's messages": (
        "/api/chat", filled(b'{"model":"m","messages":[', b'{"role":"tool"}', b"]}"),
    ),
    "Ollama's calls": (
        "/api/chat",
        filled(
            b'{"model":"m","messages":[',
            b'{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}',
            b"]}",
        ),
    ),
    "Ollama's inputs": ("/api/embed", filled(b'{"model":"m","input":[', b'"a"', b"]}")),
    "Ollama's prompt": ("/api/generate", filled(b'{"model":"m","prompt":"', b"a ", b'"}', b"")),
    "a name": ("/api/show", filled(b'{"model":"', b"m", b'"}', b"")),
    "a model's name": (CHAT, filled(b'{"messages":[],"model":"', b"m", b'"}', b"")),
    "a variant's name": (CHAT, filled(b'{"messages":[],"model":"m:', b"\xc3\xa4", b'"}', b"")),
    "Ollama's name": ("/api/chat", filled(b'{"messages":[],"model":"', b"m", b'"}', b"")),
    "an explanation": ("/gateway/explain", filled(SAID + b'"', b"word ", b'"}]}', b"")),
    "an engine's own": ("/upstream/m/anything", filled(b'{"a":"', b"b", b'"}', b"")),
    "a slot": ("/upstream/m/slots/0?action=save", filled(b'{"filename":"', b"b", b'"}', b"")),
}  # fmt: skip


@asynccontextmanager
async def watched_stack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stack, Watch]]:
    monkeypatch.setattr(readers, "QUESTION_S", 120.0)  # on a busy machine
    # What thousands of other tests left in memory is not searched for garbage meanwhile: 0.8 s.
    gc.collect()
    gc.freeze()
    try:
        async with running_stack(given()) as stack, trio.open_nursery() as nursery:
            watch = Watch()
            nursery.start_soon(watch.run)
            yield stack, watch
            nursery.cancel_scope.cancel(reason="the test is over")
    finally:
        gc.unfreeze()


async def check(stack: Stack, watch: Watch, shape: str, size: int) -> None:
    path, make = SHAPES[shape]
    body = make(size)
    await trio.sleep(0.01)
    watch.longest_s = 0.0
    answer = await send(stack, path, body)
    healthy = await stack.get("/health")
    assert healthy.status == 200
    if not stack.engines.requests:  # otherwise it is the fake engine's answer that is judged
        assert answer.status in (200, 400, 404, 413), (shape, answer.content[:200])
    if answer.status != 200:
        assert json.loads(answer.content)["error"], shape
    assert watch.longest_s < GAP_S, (shape, watch.longest_s)
    stack.engines.requests.clear()


@pytest.mark.processes
@pytest.mark.untraced
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_body_of_16_mib_keeps_the_loop_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched_stack(monkeypatch) as (stack, watch):
        for shape in SHAPES:
            await check(stack, watch, shape, LARGEST)


@pytest.mark.processes
@pytest.mark.untraced
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [15_000, 60_000, 1_000_000, 3_900_000], ids=str)
async def test_nor_does_a_smaller_one(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Those that are just not too large to be read at once, and what few limits keep out."""
    async with watched_stack(monkeypatch) as (stack, watch):
        for shape in SHAPES:
            await check(stack, watch, shape, size)


@pytest.mark.processes
@pytest.mark.untraced
async def test_others_are_served_while_a_large_body_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched_stack(monkeypatch) as (stack, _):
        assert (await stack.post(CHAT, asked(messages=says("Hi")))).status == 200
        _, make = SHAPES["parts"]
        over = trio.Event()

        async def large() -> None:
            assert (await send(stack, CHAT, make(8 * MIB))).status == 400
            over.set()

        served = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(large)
            while not over.is_set():
                assert (await stack.post(CHAT, asked(messages=says("Hi")))).status == 200
                served += 1
        assert served > 3


# -- answered as others are ------------------------------------------------------------------------

TEXT = "word " * 300_000  # 1.5 MB


async def test_an_engine_gets_the_very_bytes(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = read_here(monkeypatch)
    body = b'{ "model" :"m","max_tokens":1,\n"messages":[{"role":"user","content":"Hi"}], "x":"%b"}'
    body %= TEXT.encode()
    async with running_stack(given()) as stack:
        assert (await send(stack, CHAT, body)).status == 200
        assert stack.engines.requests[0][2] == body
    assert isinstance(questions[0], Body)


async def test_its_fields_are_changed_where_they_stand(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's `rewrite`, the model's name at the engine, the answer's maximum."""
    read_here(monkeypatch)
    monkeypatch.setattr(FakeClient, "served_name", "other")
    rewrite = RewriteConfig(set={"seed": b"7"}, default={"top_p": b"0.5"}, remove=("user",))
    subject = given(rewrite=rewrite, clamp_answer=True)
    body = asked(max_tokens=500_000, top_p=None, user="u", messages=says("Hi"), x=TEXT)
    async with running_stack(subject) as stack:
        answer = await send(stack, CHAT, body)
        assert (answer.status, header(answer, "X-Gateway-Variant")) == (200, "100000")
        sent = json.loads(stack.engines.requests[0][2])
    assert 50_000 < (left := sent["max_tokens"]) < 100_000
    assert sent == {
        "model": "other", "max_tokens": left, "top_p": 0.5, "messages": says("Hi"), "x": TEXT,
        "seed": 7,
    }  # fmt: skip


async def test_it_is_told_its_slot_where_keys_are_kept_apart(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one key could wait for another's slot, and see how much of its prompt is there."""
    read_here(monkeypatch)
    monkeypatch.setattr(FakeKind, "has_slots", True)
    names = [f"key-{n}-0123456789abcdef" for n in "ab"]
    keys = tuple(ApiKey(name=name, secret=name) for name in names)
    subject = config(
        model("m", variant(8192, parallel=2)),
        access=AccessConfig(allowed_hosts=("gateway",), api_keys=keys),
    )
    body = asked(id_slot=0, cache_prompt=True, messages=says("Hi"), x=TEXT)
    async with running_stack(subject) as stack:
        for name in names:
            headers = [("Authorization", f"Bearer {name}")]
            url = f"http://gateway{CHAT}"
            answer = await stack.http.request("POST", url, content=body, headers=headers)
            assert answer.status == 200
        first, second = (json.loads(sent) for _, _, sent in stack.engines.requests)
    assert first == json.loads(body)
    assert second == {**first, "id_slot": second["id_slot"], "cache_prompt": False}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": says("Hi"), "tools": [{"type": "function", "function": {"a": [1]}}]}),
        (CHAT, {"messages": [*says("Hi"), {"role": "assistant", "content": "a"}, *says("b" * 99)]}),
        (CHAT, {"messages": says("one two " * 900), "max_tokens": 900}),
        ("/v1/completions", {"prompt": ["a b", [1, 2, 3], [4, "x y"]]}),
        ("/v1/completions", {"prompt": "a " * 3_000}),
        ("/v1/embeddings", {"input": ["a " * 2_000] * 90}),
        ("/v1/rerank", {"query": "a b c", "documents": ["d e", {"text": "f " * 1_500}]}),
        ("/v1/responses", {"input": "Hi", "instructions": "Be kind."}),
        ("/v1/messages", {"messages": says("Hi"), "max_tokens": 9, "system": "Be kind."}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
        ("/tokenize", {"content": "a b"}),
        ("/api/chat", {"messages": says("Hi"), "options": {"num_ctx": 8000}}),
        ("/api/generate", {"prompt": "Hi", "stream": False}),
        ("/api/embed", {"input": ["a", "b"]}),
        ("/api/chat", {}),
        (CHAT, {"messages": [{"role": 3}]}),
        (CHAT, {"messages": says("word " * 200_000)}),
        ("/api/chat", {"messages": [{"role": "user", "images": ["x"]}]}),
        ("/gateway/explain", {"messages": says("one two " * 900)}),
        ("/gateway/explain?endpoint=rerank", {"query": "q", "documents": ["a " * 4_000] * 70}),
        ("/gateway/explain", {"x": 1}),
        ("/upstream/m/any", {"x": 1}),
    ],
)
async def test_a_large_request_is_answered_as_a_small_one(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any]
) -> None:
    body = asked(**fields)

    async def answered() -> tuple[Any, ...]:
        async with running_stack(given()) as stack:
            answer = await stack.post(path, body)
            kept = [h for h in answer.headers if h[0].startswith(b"x-gateway-")]
            kept = [(n, v) for n, v in kept if b"time" not in n and b"id" not in n]
            sent = [(target, data) for target, _, data in stack.engines.requests]
            content = re.sub(rb'"created(_at)?":("[^"]*"|\d+)', b"", answer.content)
            return answer.status, kept, content, sent

    small = await answered()
    questions = read_here(monkeypatch, everything=True)
    assert await answered() == small
    assert questions


async def test_media_are_left_out_of_what_is_counted(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    counted: list[bytes] = []

    async def count(self: Any, endpoint: str, body: bytes, timeout_s: float) -> int:
        counted.append(body)
        return 1_000

    monkeypatch.setattr(FakeClient, "count_tokens", count)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2 * MIB}}
    text = {"type": "text", "text": "one two " * 400}
    body = asked(messages=[{"role": "user", "content": [image, text]}], max_tokens=9)
    async with running_stack(given()) as stack:
        assert (await stack.post(CHAT, asked(messages=says("Hi"), max_tokens=9))).status == 200
        counted.clear()
        answer = await send(stack, CHAT, body)
        assert header(answer, "X-Gateway-Need") == str(1_000 + 1_024 + 9 + 16)
    assert max(map(len, counted)) < 10_000
    assert b"one two" in counted[0]


async def test_the_model_is_known_before_a_large_body_is_read(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = read_here(monkeypatch, everything=True)
    async with running_stack(given()) as stack:
        for path in (CHAT, "/v1/messages", "/api/chat", "/gateway/explain"):
            body = json.dumps({"model": "nope", "messages": says("Hi")}).encode()
            assert (await stack.post(path, body)).status == 404
    assert [type(question) for question in questions] == [Body] * 4


async def test_a_large_answer_is_translated_elsewhere_as_well(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = read_here(monkeypatch)
    numbers = [0.25] * 300_000
    whole = {"data": [{"embedding": numbers, "index": 0}], "usage": {"prompt_tokens": 3}}
    async with running_stack(given()) as stack:
        for said, status in ((whole, 200), ({**whole, "data": [numbers]}, 502)):
            stack.engines.scripts = [[json.dumps(said).encode()]]
            answer = await stack.post("/api/embed", asked(input="a"))
            assert answer.status == status
        assert b"m: " in answer.content
    assert [type(question) for question in questions] == [Translation] * 2


async def test_of_a_large_error_the_beginning_is_shown(autojump_clock: Clock) -> None:
    said = json.dumps({"error": {"message": "Too warm. " * 300_000}}).encode()
    async with running_stack(given()) as stack:
        stack.engines.scripts, stack.engines.statuses = [[said]], [400]
        answer = await stack.post("/api/chat", asked(messages=says("Hi")))
    assert answer.status == 400
    assert "Too warm. Too warm." in json.loads(answer.content)["error"]
    assert len(answer.content) < 1_000


async def test_a_large_answer_gets_the_name_that_was_asked_for(autojump_clock: Clock) -> None:
    said = {"object": "list", "model": "its own", "data": [{"embedding": [0.25] * 300_000}]}
    async with running_stack(given()) as stack:
        stack.engines.scripts = [[json.dumps(said).encode()]]
        answer = await stack.post("/v1/embeddings", asked(input="a"))
    assert json.loads(answer.content) == {**said, "model": "m"}


async def test_a_batch_of_too_many_is_refused_by_their_number(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    async with running_stack(given()) as stack:
        answer = await send(stack, "/v1/embeddings", asked(input=["a"] * 50_001))
        assert answer.status == 400
        assert "50001 entries; send no more than 50000" in error_of(answer)["message"]
        ids = await send(stack, "/v1/completions", asked(prompt=[1] * 60_000, max_tokens=1))
        assert (ids.status, header(ids, "X-Gateway-Variant")) == (200, "100000")


# -- the processes ---------------------------------------------------------------------------------


def processes() -> list[psutil.Process]:
    def is_reader(process: psutil.Process) -> bool:
        try:
            return "trio_gateway.server.reading.program" in process.cmdline()
        except psutil.Error:  # gone, or a zombie
            return False

    return [child for child in psutil.Process().children() if is_reader(child)]


async def until(condition: Callable[[], bool]) -> None:
    """Polled: what it asks is another process's state."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.processes
async def test_a_process_is_kept_for_the_next_body_and_ended_with_the_gateway() -> None:
    async with running_stack(given()) as stack:
        assert processes() == []
        for _ in range(2):
            assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200
        (kept,) = processes()
    await until(lambda: not kept.is_running())


@pytest.mark.processes
async def test_one_that_had_nothing_to_do_for_long_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "IDLE_S", 0.1)
    async with running_stack(given()) as stack:
        assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200
        await until(lambda: not processes())
        assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200


@pytest.mark.processes
async def test_a_body_is_given_up_with_its_client() -> None:
    _, make = SHAPES["texts as parts"]
    async with running_stack(given()) as stack:
        with trio.move_on_after(30) as leaving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, stack, CHAT, make(7 * MIB))
                await until(lambda: bool(processes()))
                leaving.cancel()
        await until(lambda: not processes())
        assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200


@pytest.mark.processes
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_a_process_that_ends_or_hangs_costs_one_request(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    body = asked(messages=says(TEXT), max_tokens=1)
    async with running_stack(given()) as stack:
        with monkeypatch.context() as patch:
            patch.setattr(readers, "QUESTION_S", 0.0)
            answer = await send(stack, path, body)
        assert answer.status == 413
        assert b"could not be read" in answer.content
        assert processes() == []
        assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200
        processes()[0].kill()
        assert (await send(stack, CHAT, asked(messages=says("Hi"), x=TEXT))).status == 200
