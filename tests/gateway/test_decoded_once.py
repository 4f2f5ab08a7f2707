"""A request's body is decoded once on its whole way through the gateway, and its members are looked
for once before that (server/api/request_body.py); an engine gets the client's own bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import trio_gateway
from tests.support.asking import CHAT, Clock, read_all
from tests.support.fakes import FakeClient, FakeKind
from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway import rawjson
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.clients.openai import OpenAIEngine

TEXT = "a word that is in no answer"
SAID: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": TEXT}]}
SPACED, COMPACT = (", ", ": "), (",", ":")


class Case(NamedTuple):
    path: str
    request: dict[str, Any]
    separators: tuple[str, str] = COMPACT
    answer: bytes = b"{}"
    is_translated: bool = False  # what an engine gets is another request

    @property
    def body(self) -> bytes:
        return json.dumps(self.request, separators=self.separators).encode()


CASES = {
    "chat": Case(CHAT, SAID),
    "chat with blanks": Case(CHAT, SAID, SPACED),
    "streamed chat": Case(CHAT, {**SAID, "stream": True}),
    "chat with more": Case(CHAT, {**SAID, "temperature": 1.5, "tools": [{"a": TEXT}], "x": TEXT}),
    "response": Case("/v1/responses", {"model": "m", "input": TEXT, "instructions": TEXT}),
    "message": Case("/v1/messages", {**SAID, "max_tokens": 9, "system": TEXT}),
    "embeddings": Case("/v1/embeddings", {"model": "m", "input": [TEXT, TEXT]}),
    "Ollama chat": Case(
        "/api/chat", {**SAID, "stream": False}, is_translated=True,
        answer=b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}',
    ),
}  # fmt: skip


Decode = Callable[..., Any]


def watched(decode: Decode, seen: list[bytes]) -> Decode:
    def watching(data: Any, *args: Any, **named: Any) -> Any:
        seen.append(data.encode() if isinstance(data, str) else bytes(data))
        return decode(data, *args, **named)

    return watching


@pytest.fixture(name="decoded")
def _decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever any module has decoded as JSON."""
    seen: list[bytes] = []
    monkeypatch.setattr(msgspec.json, "decode", watched(msgspec.json.decode, seen))
    monkeypatch.setattr(rawjson, "decode", watched(rawjson.decode, seen))
    monkeypatch.setattr(json, "loads", watched(json.loads, seen))
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)
    return seen


@pytest.fixture(name="opened")
def _opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever any module has looked for members in, of which none is decoded by that."""
    seen: list[bytes] = []
    finder: Decode = rawjson._decode_members
    monkeypatch.setattr(rawjson, "_decode_members", watched(finder, seen))
    return seen


@pytest.mark.parametrize("name", CASES)
async def test_a_body_is_decoded_once(
    autojump_clock: Clock, decoded: list[bytes], opened: list[bytes], name: str
) -> None:
    case = CASES[name]
    is_own = not case.is_translated
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[case.answer]]
        decoded.clear()
        opened.clear()
        url = f"http://gateway{case.path}"
        async with stack.http.stream("POST", url, content=case.body) as answer:
            await read_all(answer)
        assert answer.status == 200
        of_request = [data for data in decoded if data != case.answer and data in case.body]
        (_, _, sent) = stack.engines.requests[0]
    assert of_request.count(case.body) == 1
    # The model is told before anything else, of what is not translated first.
    assert [data for data in of_request if data != case.body] == [b'"m"'] * is_own
    assert [data for data in opened if data in case.body] == [case.body] * is_own
    assert TEXT.encode() not in b"".join(d for d in [*decoded, *opened] if d not in of_request)
    assert (sent == case.body) is is_own


@pytest.mark.parametrize("query", ["", "?endpoint=chat/completions"])
async def test_nor_is_one_that_is_only_explained(
    autojump_clock: Clock, decoded: list[bytes], opened: list[bytes], query: str
) -> None:
    body = CASES["chat"].body
    async with running_stack(config(model("m"))) as stack:
        decoded.clear()
        opened.clear()
        assert (await stack.post(f"/gateway/explain{query}", body)).status == 200
    assert (decoded.count(body), opened.count(body)) == (1, 1)


def test_no_decoder_is_made_that_would_not_be_seen_here() -> None:
    """What is decoded with one does not go through `msgspec.json.decode`."""
    files = Path(trio_gateway.__file__).parent.rglob("*.py")
    assert [f.name for f in files if "json.Decoder(" in f.read_text()] == ["rawjson.py"]


async def test_nor_is_it_decoded_for_an_engine_with_another_name(
    autojump_clock: Clock,
    decoded: list[bytes],
    opened: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeClient, "served_name", "other")
    monkeypatch.setattr(FakeClient, "transform_request", OpenAIEngine.transform_request)
    case = CASES["chat with blanks"]
    async with running_stack(config(model("m"))) as stack:
        decoded.clear()
        opened.clear()
        assert (await stack.post(case.path, case.body)).status == 200
        (_, _, sent) = stack.engines.requests[0]
    assert (decoded.count(case.body), opened.count(case.body)) == (1, 1)
    assert sent == case.body.replace(b'"m"', b'"other"')
