"""The page's files with a feed of the test's own behind them: what a page makes of any moment.

It serves `trio_gateway/page/` at /ui/ and, at /gateway/events, a snapshot and whatever the test has
it `say` then. `key`: the one that it asks for, if any.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from trio_gateway.server.handlers.page import read_page

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
GIB = 1 << 30
CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class FakeFeed:
    """`asked`: methods and paths of all requests but those for files. `last_ids`: what readers of
    the feed said where they broke off. `chat`: the pieces of each streamed answer, of which each
    but the first waits for `chat_pause`; `chats`: what asked for them. `logs`: the lines of each
    log. `missing`: files that it does not give, as a gateway that is about to stop. `refuses`: no
    new reader gets the feed."""

    def __init__(self, snapshot: Json, key: str | None = None) -> None:
        self.snapshot, self.key = snapshot, key
        self.asked: list[str] = []
        self.last_ids: list[str | None] = []
        self.answers: dict[str, Json] = {}
        self.chat: list[bytes] = []
        self.chats: list[Json] = []
        self.chat_pause = threading.Event()
        self.chat_pause.set()
        self.logs: list[Json] = []
        self.missing: set[str] = set()
        self.refuses = False
        self.chat_headers: dict[str, str] = {}
        self._readers: list[queue.Queue[tuple[str, Json] | None]] = []
        self._count = 0
        files, feed = read_page(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/ui/"):
                    name = path.removeprefix("/ui/") or "index.html"
                    if name in feed.missing:
                        self._json(503, {})
                        return
                    file = files.get(name)
                    self._send(404 if file is None else 200, b"" if file is None else file.body,
                               "" if file is None else file.content_type.decode())  # fmt: skip
                    return
                feed.asked.append(f"GET {self.path}")
                given = self.headers.get("authorization")
                if feed.key is not None and given != f"Bearer {feed.key}":
                    word = "unknown API key; check the key" if given else "an API key is needed"
                    self._json(401, {"error": {"message": word, "code": "invalid_api_key"}})
                elif path == "/gateway/events" and feed.refuses:
                    self._json(503, {"error": {"message": "it stops", "code": "stopping"}})
                elif path == "/gateway/events":
                    feed.last_ids.append(self.headers.get("last-event-id"))
                    snapshot = {**feed.snapshot, "now_s": time.time()}
                    wanted = parse_qs(self.path.partition("?")[2]).get("logs", [])
                    self._follow(("snapshot", snapshot), *feed._lines(wanted))
                else:
                    answer = feed.answers.get(path)
                    status = 404 if answer is None else 400 if "error" in answer else 200
                    self._json(status, answer or {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                feed.asked.append(f"POST {self.path}")
                if self.path == CHAT:
                    feed.chats.append(json.loads(body))
                    self._stream()
                    return
                answer = feed.answers.get(self.path, {})
                self._json(409 if "error" in answer else 200, answer)

            def _follow(self, *first: tuple[str, Json]) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                news: queue.Queue[tuple[str, Json] | None] = queue.Queue()
                for begun in first:
                    news.put(begun)
                feed._readers.append(news)
                try:
                    while (event := news.get()) is not None:
                        name, data = event
                        feed._count += 1
                        text = f"id: run-{feed._count}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
                        self.wfile.write(text.encode())
                        self.wfile.flush()
                except OSError:
                    pass
                self.close_connection = True

            def _stream(self) -> None:
                self.send_response(200)
                for name, value in feed.chat_headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for piece in feed.chat:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    feed.chat_pause.wait()
                self.close_connection = True

            def _json(self, status: int, body: Json) -> None:
                self._send(status, json.dumps(body).encode(), "application/json")

            def _send(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-security-policy", CSP)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Kept out of the tests' output."""

        self._handler = Handler
        self._server = self._start(0)

    def _start(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/ui/"

    def say(self, event: str, data: Json) -> None:
        """To all who read the feed now."""
        for reader in self._readers:
            reader.put((event, data))

    def _lines(self, wanted: Sequence[str]) -> Iterator[tuple[str, Json]]:
        """Of these logs, for a reader that begins."""
        sources = ["gateway" if name == "gateway" else f"{name}:1" for name in wanted]
        lines = [{**line, "source": source} for source in sources for line in self.logs]
        if sources:
            yield "lines", {"begins": True, "lines": lines}

    def break_off(self) -> None:
        """End the feed for all who read it; they may come again."""
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.put(None)

    def close(self) -> None:
        self.break_off()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def fake_feed(snapshot: Json, key: str | None = None) -> Iterator[FakeFeed]:
    feed = FakeFeed(snapshot, key)
    try:
        yield feed
    finally:
        feed.close()


# -- rows, as the feed has them ------------------------------------------------------------------


def snapshot(**parts: Any) -> Json:
    empty: Json = {
        "run": "run", "version": "0.2.0", "now_s": time.time(), "admin": True, "pools": [],
        "engines": [], "requests": [], "recent": [], "timeline": [], "models": [], "held": {},
        "captures": None,
    }  # fmt: skip
    return {**empty, **parts}


def pool(name: str = "gpu", **parts: Any) -> Json:
    row = {"name": name, "engines_max": 2, "memory_bytes": 24 * GIB, "used_bytes": 0}
    return {**row, "measured_bytes": None, "other_bytes": None, **parts}


def engine(number: int, model: str, **parts: Any) -> Json:
    row: Json = {
        "engine": number, "model": model, "variant": "1", "pool": "gpu", "state": "ready",
        "context": 32768, "slots": 4, "leases": 0, "pid": 4000 + number, "port": 8000 + number,
        "memory_bytes": 6 * GIB, "load_s": 8.2, "loading_s": None, "idle_s": 12.0,
        "shared_tokens": None, "kv_restored_tokens": 0, "next": "", "pinned": False, "evicted": [],
        "started_at_s": time.time() - 300, "speed": None,
    }  # fmt: skip
    return {**row, **parts}


def request(number: int, model: str, stage: str, **parts: Any) -> Json:
    row: Json = {
        "id": f"req-{number}", "endpoint": "chat/completions", "arrived_s": time.time() - 4,
        "stage": stage, "asked": model, "model": model, "client": "laptop",
        "priority": "interactive", "need": 2048, "is_streamed": True,
    }  # fmt: skip
    return {**row, **parts}


def moment(ago_s: float, number: int, model: str, change: str, **parts: Any) -> Json:
    row: Json = {
        "at_s": time.time() - ago_s, "engine": number, "model": model, "variant": "1",
        "pool": "gpu", "change": change, "reason": "", "load_s": None, "evicted": [],
    }  # fmt: skip
    return {**row, **parts}


def model(name: str, **parts: Any) -> Json:
    row: Json = {
        "name": name, "pool": "gpu", "engine_type": "llamacpp", "aliases": [], "hidden": False,
        "state": "unloaded", "pinned": False, "carryover": True, "variants": [],
    }  # fmt: skip
    return {**row, **parts}


def chat_pieces(*words: str) -> list[bytes]:
    """A streamed answer of these words."""
    events: list[Json] = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    events.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(words)}})
    return [*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"]
