"""Who can count a prompt's tokens without a running engine: `python -m benchmarks.counters`.

The truth is what the running engine says. Next to it: the file's own vocabulary and template in the
helper process, a `llama-tokenize`, and an engine of 256 tokens started only for this.

    python -m benchmarks.counters [--gguf FILE] [--tokenizer LLAMA_TOKENIZE] [--pre]

`--pre` compares each kind of pre-tokenizer instead, on copies of the file (100 MB each, one at a
time) that name that kind, with a vocabulary whose tokens reach over words, so that every cut shows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.counter_texts import make_chats, make_texts
from benchmarks.counter_vocabularies import write_with_pre_tokenizer
from tests.support.harness import free_port
from tests.support.patience import eventually
from trio_gateway.config.lua.presets import preset
from trio_gateway.models.counting.gguf_vocabulary import PRE_TOKENIZERS

START_S = 120.0
# llama-tokenize is a process for each count: of the questions every seventh, so all kinds.
TOKENIZER_STEP = 7

# An engine as a counter: as little context as it takes, and no run to warm it up.
_SMALL_ENGINE = """
import signal, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.warmup = sys.argv[1], 256, 1, False
p.hostnames, p.port = ["127.0.0.1"], int(sys.argv[2])
server = xllamacpp.Server(p)
signal.pause()
"""

Chat = dict[str, Any]
Count = Callable[[str | Chat], int | None]


class Result(msgspec.Struct):
    """Differences to the truth in tokens, None where nothing was counted; times in ms."""

    name: str
    differences: list[int | None] = []
    first_ms: float = 0.0
    further_ms: list[float] = []
    memory_mb: float = 0.0

    def cells(self) -> list[str]:
        told = [d for d in self.differences if d is not None]
        share = sum(d == 0 for d in told) / len(told) if told else 0.0
        return [
            self.name,
            f"{len(told)} / {len(self.differences)}",
            f"{share:.1%}",
            f"{max([0, *told])}",
            f"{-min([0, *told])}",
            f"{self.first_ms:,.0f}",
            f"{statistics.median(self.further_ms):,.1f}" if self.further_ms else "-",
            f"{self.memory_mb:,.0f}" if self.memory_mb else "-",
        ]


class EngineCounter:
    """Asks an engine over HTTP, as the gateway does."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def count(self, asked: str | Chat) -> int | None:
        if isinstance(asked, str):
            body = {"content": asked, "add_special": True}
            return len(self._client.post("/tokenize", json=body).json()["tokens"])
        answer = self._client.post("/v1/chat/completions/input_tokens", json=asked)
        tokens: int = answer.json()["input_tokens"]
        return tokens


class HelperCounter:
    """Asks the helper process, line by line."""

    def __init__(self, process: subprocess.Popen[bytes], gguf: Path) -> None:
        self._process, self._gguf = process, gguf

    def ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"gguf": str(self._gguf), **asked}) + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = msgspec.json.decode(self._process.stdout.readline())
        return answer

    def count(self, asked: str | Chat) -> int | None:
        answer = self.ask(prompts=[asked]) if isinstance(asked, str) else self.ask(chat=asked)
        return answer.get("tokens")


@contextmanager
def started(command: list[str], port: int) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """An engine that is ready."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=START_S
        ) as client:
            if not eventually(lambda: _is_ready(client), START_S):
                raise SystemExit(f"{' '.join(command[:3])} … is not ready")
            yield client, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def engine(gguf: Path) -> Iterator[EngineCounter]:
    port = free_port()
    command = [sys.executable, "-m", "trio_gateway.engine.clients.embedded_server"]
    with started([*command, "-m", str(gguf), "-c", "256", "--port", str(port)], port) as (
        client,
        _,
    ):
        yield EngineCounter(client)


@contextmanager
def helper(gguf: Path) -> Iterator[tuple[HelperCounter, psutil.Process]]:
    command = [sys.executable, "-P", "-m", "trio_gateway.models.counting.vocabulary_worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        yield HelperCounter(process, gguf), psutil.Process(process.pid)


def tokenize(binary: str, gguf: Path, text: str) -> int | None:
    command = [binary, "-m", str(gguf), "--log-disable", "--stdin", "--ids"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    ids = done.stdout.decode().strip().strip("[]")
    if done.returncode or (text and not ids):
        return None
    return len(ids.split(",")) if ids else 0


def measure(result: Result, count: Count, asked: list[str | Chat], truth: list[int]) -> Result:
    for question, true in zip(asked, truth, strict=True):
        begun = time.perf_counter()
        counted = count(question)
        took_ms = (time.perf_counter() - begun) * 1000
        if not result.differences:
            result.first_ms += took_ms
        else:
            result.further_ms.append(took_ms)
        result.differences.append(None if counted is None else counted - true)
    return result


def compare(gguf: Path, tokenizer: str | None) -> Iterator[Result]:
    texts = make_texts()
    chats = make_chats(texts)
    with engine(gguf) as running:
        asked: list[tuple[str, list[str | Chat], list[int]]] = [
            ("texts", [*texts], [running.count(t) or 0 for t in texts]),
            ("chats", [*chats], [running.count(c) or 0 for c in chats]),
        ]
    for kind, questions, true in asked:
        with helper(gguf) as (counter, process):
            result = measure(Result(f"{kind}: vocabulary"), counter.count, questions, true)
            result.memory_mb = process.memory_info().rss / 1e6
        yield result
        if tokenizer is not None:
            yield _with_tokenizer(kind, tokenizer, gguf, questions, true)
        yield _with_small_engine(kind, gguf, questions, true)


def _with_tokenizer(
    kind: str, binary: str, gguf: Path, questions: list[str | Chat], true: list[int]
) -> Result:
    """A chat is rendered by the helper first."""
    some = questions[::TOKENIZER_STEP]
    with helper(gguf) as (counter, _):

        def count(asked: str | Chat) -> int | None:
            text = asked if isinstance(asked, str) else counter.ask(render=asked).get("text")
            return None if text is None else tokenize(binary, gguf, text)

        return measure(Result(f"{kind}: llama-tokenize"), count, some, true[::TOKENIZER_STEP])


def _with_small_engine(
    kind: str, gguf: Path, questions: list[str | Chat], true: list[int]
) -> Result:
    port = free_port()
    begun = time.perf_counter()
    command = [sys.executable, "-c", _SMALL_ENGINE, str(gguf), str(port)]
    with started(command, port) as (client, process):
        result = Result(f"{kind}: engine of 256 tokens")
        result.first_ms = (time.perf_counter() - begun) * 1000
        measure(result, EngineCounter(client).count, questions, true)
        result.memory_mb = process.memory_info().rss / 1e6
    return result


def compare_pre_tokenizers(gguf: Path) -> Iterator[Result]:
    texts = make_texts()
    with tempfile.TemporaryDirectory(prefix="counters-") as folder:
        copy = Path(folder) / "copy.gguf"
        for pre in PRE_TOKENIZERS:
            write_with_pre_tokenizer(gguf, copy, pre, texts)
            with engine(copy) as running, helper(copy) as (counter, _):
                true = [running.count(text) or 0 for text in texts]
                yield measure(Result(pre), counter.count, [*texts], true)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, default=None)
    parser.add_argument("--tokenizer", default=shutil.which("llama-tokenize"))
    parser.add_argument("--pre", action="store_true")
    options = parser.parse_args()
    gguf = options.gguf or Path(preset("models", "smollm2"))
    table = Table(title=f"{gguf.name}, {os.cpu_count()} cores")
    for column in ["counter", "counted", "exact", "most over", "most under"]:
        table.add_column(column, justify="left" if column == "counter" else "right")
    for column in ["first (ms)", "further (ms)", "memory (MB)"]:
        table.add_column(column, justify="right")
    results = compare_pre_tokenizers(gguf) if options.pre else compare(gguf, options.tokenizer)
    for result in results:
        table.add_row(*result.cells())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
