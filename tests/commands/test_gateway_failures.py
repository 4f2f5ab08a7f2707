"""What commands say that ask a gateway which does not answer as it should."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.harness import configuration, free_port, model, real_variant
from trio_gateway.commands.root import root
from trio_gateway.stop_signals import StopSignals

COMMANDS = {
    "status": (),
    "requests": (),
    "load": ("m",),
    "unload": ("m",),
    "pin": ("m",),
    "cancel": ("1",),
    "logs": (),
    "logs -f": ("-f",),
    "top": ("--json",),
    "explain": ("-",),
}
OURS = b"X-Gateway-Request-Id: 1\r\n"


def answer(
    status: int, body: bytes, kind: bytes = b"application/json", more: bytes = OURS
) -> bytes:
    size = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n%b%b\r\n%b" % (status, kind, size, more, body)


def error(status: int, code: str | int, more: bytes = OURS) -> bytes:
    body = {"error": {"message": "it said so", "type": "x", "param": None, "code": code}}
    return answer(status, json.dumps(body).encode(), more=more)


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % OURS
HAS_ENDED = r"the gateway at \S+ has ended; its log may say why, and `trio-gateway serve`"
NOT_OURS = r"\S+ is not a gateway of this version: .*; name the configuration of yours with -c"
WANTS_KEY = r"\S+: it said so; give a key with --key-file or \$TRIO_GATEWAY_KEY"
OLDER = r"of another version than this command .* does not know /gateway/\S+; start it again"
ANSWERS = {
    "it is killed before it answers": (b"", HAS_ENDED),
    "it is killed in its answer": (answer(200, b'{"engines": [] }')[:-3], HAS_ENDED),
    "it is killed in a stream": (STREAM + b"1\r\n\n\r\n", HAS_ENDED),
    "it is killed in an error": (error(503, "x")[:-3], HAS_ENDED),
    "it wants a key": (error(401, "invalid_api_key"), WANTS_KEY),
    "it wants an admin's key": (error(403, "admin_only"), WANTS_KEY),
    "it refuses": (error(429, "queue_full"), r"\S+: it said so$"),
    "it is older": (error(404, "unknown_path"), OLDER),
    "it is older and knows another method": (error(405, "method_not_allowed"), OLDER),
    "a web server": (answer(200, b"<html>Hi</html>", b"text/html", b""), NOT_OURS),
    "a web server without that": (answer(404, b"<html>?</html>", b"text/html", b""), NOT_OURS),
    "a server of something else": (error(404, 404, b""), NOT_OURS),
    "a server of anything": (answer(200, b"{}", more=b""), NOT_OURS),
    "no HTTP": (
        b"220 smtp.example.org\r\n\r\n",
        r"\S+ does not speak HTTP; name the configuration",
    ),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", "if it speaks https, set `server.tls` in the"),
}


@contextmanager
def answering(
    text: bytes, family: int = socket.AF_INET, at: object = ("127.0.0.1", 0)
) -> Iterator[int]:
    """Answers each connection with this, and closes it."""
    with socket.socket(family) as listener:
        listener.bind(at)  # type: ignore[arg-type]
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(tmp_path: Path, command: str, **server: str) -> Result:
    path = tmp_path / "gateway.lua"
    path.write_text(configuration(model("m", real_variant(512)), **server))
    name = command.split()[0]
    argv = [name, "-c", str(path), *COMMANDS[command]]
    return CliRunner().invoke(root, argv, input='{"model":"m","prompt":""}', obj=StopSignals())


def assert_says(result: Result, pattern: str) -> None:
    """In one line, and with no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert re.search(rf"^trio-gateway: .*{pattern}", line), line


@pytest.mark.parametrize("command", COMMANDS)
def test_each_says_in_a_line_what_is_wrong_and_what_to_do(tmp_path: Path, command: str) -> None:
    for case, (text, says) in ANSWERS.items():
        with answering(text) as port:
            result = run(tmp_path, command, listen=f'"127.0.0.1:{port}"')
        print(case)
        assert_says(result, says)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "explain"])
def test_where_nobody_is_each_says_how_to_start_one(tmp_path: Path, command: str) -> None:
    says = "no gateway answers at {}; start it with `trio-gateway serve`, or name the configuration"
    port = free_port()
    result = run(tmp_path, command, listen=f'"127.0.0.1:{port}"')
    assert_says(result, says.format(f"http://127.0.0.1:{port}"))
    at = tmp_path / "s"
    unix = {"listen": '"none"', "listen_unix": f'"{at}"'}
    assert_says(run(tmp_path, command, **unix), says.format(f"unix:{at}"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(at))
    assert_says(run(tmp_path, command, **unix), says.format(f"unix:{at}"))
