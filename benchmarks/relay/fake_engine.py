"""A stand-in for llama-server that costs next to nothing, so that what is measured is the proxy.

    python fake_engine.py --host HOST --port PORT    (llama-server's other arguments are ignored)
    python fake_engine.py --fd NUMBER                a listening socket that its parent opened

A request says in its text, in whatever form it is, that its answer is a stream, and at which pace:
`[[chunks=400 rate=100]]` is 400 chunks, 100 of them each second; rate 0 is all of them at once.
Every answer is made before the first request comes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
from typing import Any, NamedTuple

import httptools

PACE = re.compile(rb"\[\[chunks=(\d+) rate=(\d+)\]\]")
PACE_BEGINS = b"[[chunks="
WORD = "token "
SLOTS = 256
TOKENS_A_SLOT = 1 << 18
BACKLOG = 1024


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(value: object, name: str = "") -> bytes:
    return (b"event: %s\n" % name.encode() if name else b"") + b"data: %s\n\n" % _json(value)


def _named(value: dict[str, Any]) -> bytes:
    """As Anthropic's events are: the name is the type."""
    return _event(value, value["type"])


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _frame(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class Answer(NamedTuple):
    """Bytes as they go out: an answer in one piece, and the parts of a stream."""

    plain: bytes
    begin: bytes
    chunk: bytes
    end: bytes


def _answer(plain: object, kind: bytes, first: bytes, chunk: bytes, last: bytes) -> Answer:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    begin = head + (_frame(first) if first else b"")
    return Answer(_whole(_json(plain)), begin, _frame(chunk), _frame(last) + b"0\r\n\r\n")


def _openai() -> Answer:
    common = {"id": "chatcmpl-0", "created": 1, "model": "m"}
    piece = {**common, "object": "chat.completion.chunk"}
    usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}

    def choice(finish: str | None, **said: object) -> list[dict[str, object]]:
        return [{"index": 0, **said, "finish_reason": finish}]

    said = choice("stop", message={"role": "assistant", "content": "hi"})
    chunk = _event({**piece, "choices": choice(None, delta={"content": WORD})})
    last = _event({**piece, "choices": choice("stop", delta={})}) + b"data: [DONE]\n\n"
    plain = {**common, "object": "chat.completion", "choices": said, "usage": usage}
    return _answer(plain, b"text/event-stream", b"", chunk, last)


def _anthropic() -> Answer:
    message = {
        "id": "msg_0", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 12, "output_tokens": 1},
    }  # fmt: skip
    block: dict[str, object] = {"index": 0}
    begun = {**message, "content": [], "stop_reason": None}
    first = _named({"type": "message_start", "message": begun}) + _named(
        {"type": "content_block_start", **block, "content_block": {"type": "text", "text": ""}}
    )
    delta = {"type": "text_delta", "text": WORD}
    chunk = _named({"type": "content_block_delta", **block, "delta": delta})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    last = (
        _named({"type": "content_block_stop", **block})
        + _named({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 1}})
        + _named({"type": "message_stop"})
    )
    return _answer(message, b"text/event-stream", first, chunk, last)


def _ollama() -> Answer:
    """Not llama-server's: what a proxy that translates nothing gets for a request to Ollama."""

    def line(text: str, done: bool) -> dict[str, object]:
        message = {"role": "assistant", "content": text}
        common = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message}
        return {**common, "done": done, **({"done_reason": "stop"} if done else {})}

    chunk, last = (_json(line(*said)) + b"\n" for said in ((WORD, False), ("", True)))
    return _answer(line("hi", True), b"application/x-ndjson", b"", chunk, last)


ANSWERS = {
    b"/v1/chat/completions": _openai(),
    b"/v1/messages": _anthropic(),
    b"/api/chat": _ollama(),
}
FACTS = {
    "total_slots": SLOTS,
    "default_generation_settings": {"n_ctx": TOKENS_A_SLOT},
    "model_path": "fake.gguf",
    "build_info": "fake",
}
OTHERS = {
    b"/health": _whole(b'{"status":"ok"}'),
    b"/props": _whole(_json(FACTS)),
    b"/slots": _whole(b"[]"),
    b"/v1/models": _whole(b'{"object":"list","data":[{"id":"m","object":"model"}]}'),
}
UNKNOWN = _whole(b'{"error":{"message":"no such path"}}', b"404 Not Found")


class Connection(asyncio.Protocol):
    """One request after another; the parser calls the methods `on_...`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", b""
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        path = self._path.partition(b"?")[0]
        answer = ANSWERS.get(path)
        if answer is None:
            self._transport.write(OTHERS.get(path, UNKNOWN))
            return
        at = self._body.rfind(PACE_BEGINS)
        pace = PACE.match(self._body, at) if at >= 0 else None
        if pace is None:
            self._transport.write(answer.plain)
            return
        chunks, rate = int(pace[1]), int(pace[2])
        if rate == 0:
            self._transport.write(answer.begin + answer.chunk * chunks + answer.end)
            return
        self._transport.write(answer.begin + answer.chunk)
        self._later(answer, chunks - 1, 1 / rate, self._loop.time())

    def _later(self, answer: Answer, left: int, interval_s: float, now: float) -> None:
        due = now + interval_s
        self._next = self._loop.call_at(due, self._beat, answer, left, interval_s, due)

    def _beat(self, answer: Answer, left: int, interval_s: float, due: float) -> None:
        if left == 0:
            self._transport.write(answer.end)
            return
        self._transport.write(answer.chunk)
        self._later(answer, left - 1, interval_s, due)


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--fd", type=int)
    given, _ = options.parse_known_args()
    if given.fd is None:
        listener = socket.create_server((given.host, given.port), backlog=BACKLOG)
    else:
        listener = socket.socket(fileno=given.fd)
    server = await asyncio.get_running_loop().create_server(
        Connection, sock=listener, backlog=BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
