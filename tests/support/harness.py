"""Runs a gateway as its users do: a process, a configuration file, a socket, signals."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.patience import eventually

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
WAIT_S = 60.0  # for what must come; it is told by its absence
END_S = 20.0
# What llama-server says when it leaves a request: the tokens that its slot holds by then.
STOPPED_AT = r"stop processing: n_tokens = (\d+)"
CLIENT_KEY = "sk-test-0123456789abcdef"  # of the gateway that asks for one
SERVE = (sys.executable, "-m", "trio_gateway", "serve", "-c")
HYPERCORN = (str(Path(sys.executable).with_name("hypercorn")),)


def lua_string(text: str) -> str:
    return f"[==[{text}]==]"


def lua_array(values: Sequence[str]) -> str:
    return "{" + ", ".join(lua_string(v) for v in values) + "}"


def fake_model(name: str, *args: str, context: int = 4096, **fields: str) -> str:
    """A model on tests/support/fake_engine.py; `fields` are further Lua entries of the model."""
    return model(name, fake_variant(*args, context=context), **fields)


def fake_variant(*args: str, context: int = 4096) -> str:
    # Without site packages: it needs none, and its lines are not the ones to be covered.
    command = ["-S", str(FAKE_ENGINE), "--ctx-size", str(context), *args]
    return (
        f"{{ binary = {lua_string(sys.executable)}, args = {lua_array(command)}, "
        f"context = {context} }}"
    )


def real_variant(context: int, *args: str, file: Path | None = None) -> str:
    """A real engine, with the packaged model unless a `file` is given.

    With one thread: several wait for each other actively, for very long on a busy machine."""
    own = lua_array(["--ctx-size", str(context), "--parallel", "1", "--threads", "1", *args])
    gguf = "presets.models.smollm2" if file is None else lua_string(str(file))
    return (
        f"{{ binary = presets.binaries.embedded, context = {context}, args = concat_arrays("
        f'{{"--model", {gguf}}}, {own}) }}'
    )


def model(name: str, *variants: str, **fields: str) -> str:
    rest = "".join(f", {key} = {value}" for key, value in fields.items())
    engine = "" if "engine" in fields else ", engine = presets.engines.llamacpp"
    return f'{{ name = "{name}", variants = {{ {", ".join(variants)} }}{engine}{rest} }}'


def configuration(*models: str, listen: str = '"127.0.0.1:0"', **server: str) -> str:
    rest = "".join(f", {key} = {value}" for key, value in server.items())
    return f"server = {{ listen_v4 = {listen}{rest} }}\nmodels = {{ {', '.join(models)} }}\n"


class GatewayProcess:
    """A running gateway and everything that it wrote."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.base_url = ""
        self.seen: dict[int, psutil.Process] = {}
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def log(self) -> str:
        with self._news:
            return "\n".join(self._lines)

    def lines_so_far(self) -> int:
        with self._news:
            return len(self._lines)

    def wait_for_line(
        self, pattern: str, timeout_s: float = WAIT_S, after: int = 0
    ) -> re.Match[str]:
        """The first line, written already or still to come, that the pattern is found in; `after`
        so many lines, see `lines_so_far`."""
        deadline = time.monotonic() + timeout_s
        index = after
        with self._news:
            while True:
                for line in self._lines[index:]:
                    if match := re.search(pattern, line):
                        return match
                index = len(self._lines)
                left = deadline - time.monotonic()
                over = self.process.poll() is not None and not self._reader.is_alive()
                if left <= 0 or over:
                    raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self._lines))
                self._news.wait(min(left, 0.5))

    def descendants(self) -> list[psutil.Process]:
        """All processes below the gateway now; they are remembered for `assert_nothing_left`."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen.update({p.pid: p for p in found})
        return found

    def engines(self) -> list[psutil.Process]:
        return [p for p in self.descendants() if _is_engine(p)]

    def reaper(self) -> psutil.Process:
        return next(p for p in self.descendants() if "reaper_program.py" in " ".join(p.cmdline()))

    def send_signal(self, number: signal.Signals) -> None:
        self.descendants()
        self.process.send_signal(number)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send_signal(number)
        return self.wait()

    def assert_nothing_left(self, within_s: float = 1.0) -> None:
        left = wait_until_gone(list(self.seen.values()), within_s)
        for process in left:
            process.kill()
        assert not left, f"still running: {left}"

    # -- requests -----------------------------------------------------------------------------

    def client(self, timeout_s: float = WAIT_S) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, timeout=timeout_s, trust_env=False)

    def async_client(self, timeout_s: float = WAIT_S) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.base_url,
            timeout=timeout_s,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )

    def chat(self, model: str, text: str = "Hi", **fields: Any) -> httpx.Response:
        with self.client() as client:
            return client.post("/v1/chat/completions", json=chat_body(model, text, **fields))

    def error_of(self, model: str, **fields: Any) -> tuple[int, str, str]:
        """Status, code and message, with an engine's last lines, of an answer that must be an error
        in OpenAI's shape."""
        response = self.chat(model, **fields)
        error = response.json()["error"]
        assert set(error) - {"engine_output"} == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        said = "\n".join([error["message"], *error.get("engine_output", [])])
        return response.status_code, error["code"], said

    @contextmanager
    def streaming(self, model: str) -> Iterator[Iterator[bytes]]:
        """A stream of 3000 chunks whose first piece has come; the block has the rest."""
        body = chat_body(model, stream=True, max_tokens=3000)
        with (
            self.client() as client,
            client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            pieces = response.iter_bytes()
            assert b"tok" in next(pieces)
            yield pieces

    def engine_of(self, model: str) -> psutil.Process:
        """The process of the model's newest engine."""
        self.wait_for_line(rf" {model}:\d+: ready in ")
        pid = re.findall(rf" {model}:\d+: ready in .*\(pid (\d+),", self.log)[-1]
        return psutil.Process(int(pid))


def broken_off(pieces: Iterable[bytes]) -> str:
    """The message, with an engine's last lines, of the error event that a stream ends with instead
    of being complete."""
    rest = b"".join(pieces)
    assert b"[DONE]" not in rest
    *_, last = rest.strip().split(b"\n\n")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) - {"engine_output"} == {"message", "type", "param", "code"}
    assert error["code"] == "engine_failed"
    return "\n".join([error["message"], *error.get("engine_output", [])])


def untraced() -> dict[str, str]:
    """The environment without what makes coverage follow into a process: for one that has no
    code of ours in it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}


def free_port() -> int:
    """A port that is used later. Of those that systems do not give to whoever asks for any, so that
    no other test's connection has it by then."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def chat_body(model: str, text: str = "Hi", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return {**body, **fields}


def wait_until_gone(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that still run after that time. A zombie is gone: only its parent's wait is missing,
    and in a container there may be no init that does it."""
    eventually(lambda: not any(_runs(p) for p in processes), within_s)
    return [p for p in processes if _runs(p)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_engine(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "fake_engine.py" in command or "trio-gateway-llama-server" in command


@contextmanager
def running_gateway(
    tmp_path: Path,
    config: str,
    *,
    command: Sequence[str] = SERVE,
    ready: str = r"Base URL for clients: (\S+)/v1",
    verbose: bool = True,
) -> Iterator[GatewayProcess]:
    """A gateway with this configuration; ended, with a check that nothing is left, at the end."""
    file = tmp_path / "gateway.lua"
    file.write_text(config)
    argv = list(command)
    if command is SERVE:
        argv += [str(file), *(["--verbose"] if verbose else [])]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={
            **os.environ,
            "TRIO_GATEWAY_CONFIG": str(file),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),  # saved KV caches of this gateway only
            "XDG_STATE_HOME": str(tmp_path / "state"),  # and what it has measured
        },
        start_new_session=True,
    )
    gateway = GatewayProcess(process)
    try:
        gateway.base_url = gateway.wait_for_line(ready)[1]
        gateway.descendants()
        yield gateway
        gateway.descendants()
    finally:
        try:
            if process.poll() is None:
                gateway.send_signal(signal.SIGTERM)
                gateway.wait(END_S)
        finally:  # whatever went wrong, and whoever interrupted it
            process.kill()
            gateway.wait()
        gateway.assert_nothing_left()


@contextmanager
def started(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read as text; it does not outlive the block."""
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
