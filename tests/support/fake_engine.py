"""A program that looks like a llama-server and misbehaves on demand. Standard library only.

What the real engine cannot be made to do: crash at a given point, hang, ignore SIGTERM, talk
garbage, or answer at an exact pace. A request's `max_tokens` is the number of chunks of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

CHUNK = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"fake","choices":[{"index":0,"delta":{"content":" tok"},"finish_reason":null}]}\n\n'
)
DONE = b"data: [DONE]\n\n"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, default=4096)
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--load-s", type=float, default=0.0, help="until /health answers 200")
    parser.add_argument("--interval-s", type=float, default=0.002, help="between two chunks")
    parser.add_argument("--stop-s", type=float, default=0.0, help="from SIGTERM to the exit")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--exit-at-start", type=int, help="exit code, after a line of output")
    parser.add_argument("--exit-during-load", type=float, help="seconds after the start, code 9")
    parser.add_argument("--crash-after", type=int, help="chunks of a stream; 0: at any completion")
    parser.add_argument("--refuse-requests", help="path: while it exists, only /health is answered")
    parser.add_argument("--no-keep-alive", action="store_true", help="of answers that are JSON")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--garbage", action="store_true", help="answers that are not HTTP")
    parser.add_argument("--grandchild", action="store_true", help="one that holds the pipe")
    parser.add_argument("--hold-port-grandchild", action="store_true", help="and the port")
    parser.add_argument("--escaped-helper", action="store_true", help="as above, own session")
    parser.add_argument("--flood", action="store_true", help="4 MB of output without a newline")
    parser.add_argument("--model", help="a file; not read")
    parser.add_argument("--slot-save-path", help="folder; without it there are no slot actions")
    parser.add_argument("--slot-tokens", type=int, default=1000, help="what the slot then holds")
    parser.add_argument("--hang-in-save", action="store_true", help="after half of the file")
    parser.add_argument("--crash-on-restore", action="store_true")
    parser.add_argument("--answers", help="JSON file: path → {json: answer, events: SSE text}")
    parser.add_argument("--die-once", help="path: the first completion kills the engine, once")
    return parser.parse_args()


def die_if_not_yet(flag: str | None) -> None:
    """Kill this process, unless an earlier one of the same configuration was killed already."""
    if flag and not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


def spawn_grandchild(*descriptors: int) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(command, pass_fds=descriptors)


def refuse_while_there_is(flag: str | None) -> None:
    """Close the connection without an answer."""
    if flag and os.path.exists(flag):
        raise ConnectionAbortedError


def write_file(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def crash() -> None:
    print("fake engine: a bug in a kernel", file=sys.stderr, flush=True)
    os._exit(3)


def give_up_loading() -> None:
    print("fake engine: the model is too large", file=sys.stderr, flush=True)
    os._exit(9)


def spawn_escaped_helper() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"], start_new_session=True)


def body_of(data: bytes) -> dict[str, Any]:
    """Of what is asked here it is always an object; other paths get their 404, whatever it is."""
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


class FakeEngine:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.ready = False
        self.processing = 0
        self.answers: dict[str, dict[str, Any]] = {}
        if given.answers:
            with open(given.answers) as file:
                self.answers = json.load(file)
        self.held: dict[str, int] = {}  # as /slots shows it, once something was asked

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer) and not self.given.no_keep_alive:
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection is kept."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.lower().split("\r\n")
        length = next((int(x[15:]) for x in lines if x.startswith("content-length:")), 0)
        if "content-type: multipart/form-data" in "\n".join(lines):
            chunked = "transfer-encoding: chunked" in lines
            await self._take_form(reader, writer, None if chunked else length)
            return "connection: close" not in lines
        body = body_of(await reader.readexactly(length))
        path = head.split(" ", 2)[1]
        match path:
            case "/health" if not self.ready:
                self._json(writer, {"error": {"message": "Loading model"}}, status=503)
            case "/health":
                self._json(writer, {"status": "ok"})
            case "/props":
                settings = {"n_ctx": self.given.ctx_size}
                slots = self.given.parallel
                self._json(writer, {"total_slots": slots, "default_generation_settings": settings})
            case "/slots":
                slot = {"id": 0, "is_processing": self.processing > 0, **self.held}
                self._json(writer, [slot])
            case "/slots/0?action=save" if self.given.slot_save_path:
                await self._save(writer, body["filename"])
            case "/slots/0?action=restore" if self.given.slot_save_path:
                self._restore(writer, body["filename"])
            case "/v1/chat/completions/input_tokens":
                self._json(writer, {"input_tokens": len(json.dumps(body)) // 4})
            case _ if path in self.answers:
                self._answer(writer, self.answers[path], bool(body.get("stream")))
            case "/v1/chat/completions" | "/v1/completions":
                await self._complete(writer, body)
            case _:
                self._json(writer, {"error": {"message": f"no {path}", "code": 404}}, status=404)
        await writer.drain()
        return "connection: close" not in lines

    async def _take_form(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None
    ) -> None:
        """Count a body that may be too large to be held. A large one is kept waiting first."""
        if length is not None and length > 1_000_000:
            await asyncio.sleep(0.2)
        size = crc = 0
        async for piece in self._pieces(reader, length):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
        self._json(writer, {"text": f"{size} bytes", "crc": crc})
        await writer.drain()

    @staticmethod
    async def _pieces(reader: asyncio.StreamReader, length: int | None) -> AsyncIterator[bytes]:
        left = length or 0
        while left or length is None:
            if length is None and not left:
                left = int(await reader.readuntil(b"\r\n"), 16)
                if not left:
                    await reader.readuntil(b"\r\n")
                    return
            piece = await reader.read(min(left, 65536))
            if not piece:
                raise ConnectionAbortedError
            left -= len(piece)
            yield piece
            if length is None and not left:
                await reader.readexactly(2)

    def _answer(self, writer: asyncio.StreamWriter, given: dict[str, Any], stream: bool) -> None:
        if not stream:
            self._json(writer, given["json"])
            return
        self._begin_stream(writer)
        events = given["events"].encode()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events))

    async def _complete(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        die_if_not_yet(self.given.die_once)
        if self.given.crash_after == 0:
            crash()
        refuse_while_there_is(self.given.refuse_requests)
        if self.given.garbage:
            writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            return
        if body.get("max_tokens") == 13:
            self._json(writer, {"error": {"message": "unlucky", "type": "fake_error"}}, status=418)
            return
        self.processing += 1
        self.held = {"n_prompt_tokens": self.given.slot_tokens}
        try:
            count = 8 if body.get("max_tokens") is None else body["max_tokens"]
            if body.get("stream"):
                await self._stream(writer, count)
            else:
                await asyncio.sleep(count * self.given.interval_s)
                message = {"role": "assistant", "content": " tok" * count}
                self._json(
                    writer,
                    {"object": "chat.completion", "choices": [{"index": 0, "message": message}]},
                )
        finally:
            self.processing -= 1

    async def _stream(self, writer: asyncio.StreamWriter, count: int) -> None:
        self._begin_stream(writer)
        for sent in range(count):
            if sent == self.given.crash_after:
                crash()
            writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            await writer.drain()
            await asyncio.sleep(self.given.interval_s)
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))

    @staticmethod
    def _begin_stream(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def _save(self, writer: asyncio.StreamWriter, name: str) -> None:
        """A file as llama-server writes it: a header, the ids, the cache."""
        tokens = self.given.slot_tokens
        ids = struct.pack(f"<{tokens + 4}i", -1, 1, tokens, *range(tokens), 0)
        data = struct.pack("<4sII", b"qsgg", 4, tokens + 4) + ids + bytes(1000)
        path = os.path.join(self.given.slot_save_path, name)
        if self.given.hang_in_save:
            write_file(path, data[: len(data) // 2])
            print("fake engine: saving", flush=True)
            await asyncio.sleep(600)
        write_file(path, data)
        self._json(writer, {"id_slot": 0, "n_saved": tokens, "n_written": len(data)})

    def _restore(self, writer: asyncio.StreamWriter, name: str) -> None:
        if self.given.crash_on_restore:
            crash()
        size = os.path.getsize(os.path.join(self.given.slot_save_path, name))
        tokens = self.given.slot_tokens
        self._json(writer, {"id_slot": 0, "n_restored": tokens, "n_read": size})

    def _json(self, writer: asyncio.StreamWriter, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nServer: fake\r\nAccess-Control-Allow-Origin: *\r\n"
        if self.given.no_keep_alive:
            head += "Connection: close\r\n"
        writer.write(head.encode() + b"\r\n" + body)


async def main() -> None:
    given = options()
    if given.exit_at_start is not None:
        print("fake engine: the model is broken", file=sys.stderr, flush=True)
        sys.exit(given.exit_at_start)
    if given.flood:
        sys.stdout.write("x" * 4_000_000)
        sys.stdout.flush()
    if given.grandchild:
        spawn_grandchild()
    if given.escaped_helper:
        spawn_escaped_helper()
    engine, ended = FakeEngine(given), asyncio.Event()
    server = await asyncio.start_server(engine.serve_one, given.host, given.port, backlog=512)
    loop = asyncio.get_running_loop()
    if given.hold_port_grandchild:
        spawn_grandchild(*(sock.fileno() for sock in server.sockets))
    if given.exit_during_load is not None:
        given.never_ready = True
        loop.call_later(given.exit_during_load, give_up_loading)
    if given.ignore_sigterm:
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
    else:
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    print("fake engine: listening", flush=True)
    if not given.never_ready:
        loop.call_later(given.load_s, setattr, engine, "ready", True)
    async with server:
        await ended.wait()
        await asyncio.sleep(given.stop_s)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
