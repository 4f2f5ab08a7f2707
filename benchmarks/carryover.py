"""What a conversation's second turn costs after its engine was stopped, carried over and cold.

    python -m benchmarks.carryover [--rounds N]

A conversation of about 3,000 tokens has two turns; in between its engine goes away in one of four
ways. Each is done with the KV carry-over and without it, one after the other.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.table import Table

from benchmarks.scheduler_trace import wide_console
from tests.support.harness import (
    GatewayProcess,
    configuration,
    lua_string,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually
from trio_gateway.models.need.bounds import MARGIN_TOKENS

ROUNDS = 1
SENTENCES = 121  # of 26 tokens each
ANSWER_TOKENS = 8
CONTEXT, LARGER_CONTEXT = 4096, 8192
IDLE_S = 1.0
LIMIT_S = 300.0
TO_REACH = 20.0

Messages = list[dict[str, str]]


class Turn(NamedTuple):
    """An answer as it came. Seconds: until its first byte, and of these the queue (a stop and a
    save included), the load (a restore included), and the engine's reading of the prompt."""

    text: str
    first_byte_s: float
    queue_s: float
    load_s: float
    read_s: float
    prompt_tokens: int
    cached_tokens: int
    kv: str
    variant: str


class Talk(NamedTuple):
    """Both turns, and what the gateways logged."""

    first: Turn
    second: Turn
    log: str


class Pair(NamedTuple):
    cold: Talk
    carried: Talk


def opening() -> Messages:
    """The first turn: a text, and what to do with it."""
    text = " ".join(
        f"In {1850 + number} the {number % 7 + 2} engines of the town read {number * 37} pages, "
        f"and {'nobody' if number % 3 else 'the mayor'} remembered them."
        for number in range(1, SENTENCES + 1)
    )
    return [{"role": "user", "content": f"{text}\n\nWhat is this text about?"}]


def ask(gateway: GatewayProcess, messages: Messages) -> Turn:
    body = {
        "model": "talk", "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events, first_byte_s, begun = list[dict[str, Any]](), 0.0, time.perf_counter()
    with (
        gateway.client(timeout_s=LIMIT_S) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        for line in response.iter_lines():
            first_byte_s = first_byte_s or time.perf_counter() - begun
            if line.startswith("data: {"):
                events.append(msgspec.json.decode(line[6:]))
        assert response.status_code == 200, response.read()
    deltas = [choice["delta"] for event in events for choice in event.get("choices", ())]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    timings = next(event["timings"] for event in reversed(events) if event.get("timings"))
    return Turn(
        text="".join(delta.get("content") or "" for delta in deltas),
        first_byte_s=first_byte_s,
        queue_s=int(response.headers["X-Gateway-Queue-Ms"]) / 1000,
        load_s=int(response.headers["X-Gateway-Load-Ms"]) / 1000,
        read_s=timings["prompt_ms"] / 1000,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        kv=response.headers.get("X-Gateway-Kv", ""),
        variant=response.headers["X-Gateway-Variant"],
    )


def go_on(gateway: GatewayProcess, first: Turn) -> Turn:
    said = {"role": "assistant", "content": first.text}
    return ask(gateway, [*opening(), said, {"role": "user", "content": "Go on."}])


# -- how the engine goes away -----------------------------------------------------------------


@contextmanager
def serving(folder: Path, kv: str, *contexts: int, **server: str) -> Iterator[GatewayProcess]:
    """A gateway with the talking model and another one. `kv`: Lua, of `server.kv_carryover`."""
    config = configuration(
        # No room to grow: the first turn is to get the variant that just holds it.
        model("talk", *map(real_variant, contexts or (CONTEXT,)), headroom="0"),
        model("other", real_variant(CONTEXT)),
        kv_carryover=kv,
        stream_keepalive="0",  # otherwise a comment is the first byte of a slow answer
        **server,
    )
    with running_gateway(folder, config, verbose=False) as gateway:
        yield gateway


def swap(folder: Path, kv: str) -> Talk:
    with serving(folder, kv) as gateway:
        first = ask(gateway, opening())
        assert gateway.chat("other").status_code == 200
        return Talk(first, go_on(gateway, first), gateway.log)


def growth(folder: Path, kv: str) -> Talk:
    with serving(folder, kv) as gateway, gateway.client() as client:
        asked = {"model": "talk", "messages": opening()}
        counted: int = client.post("/gateway/explain", json=asked).json()["counted"]
        needed = counted + ANSWER_TOKENS + MARGIN_TOKENS
    with serving(folder, kv, needed, LARGER_CONTEXT) as gateway:
        first = ask(gateway, opening())
        return Talk(first, go_on(gateway, first), gateway.log)


def idle_stop(folder: Path, kv: str) -> Talk:
    with serving(folder, kv, engine_idle_timeout=f"{IDLE_S:g}") as gateway:
        first = ask(gateway, opening())
        with gateway.client() as client:

            def is_stopped() -> bool:
                return not client.get("/gateway/engines").json()["engines"]

            assert eventually(is_stopped, LIMIT_S), "the idle engine was not stopped"
        return Talk(first, go_on(gateway, first), gateway.log)


def restart(folder: Path, kv: str) -> Talk:
    with serving(folder, kv) as gateway:
        first = ask(gateway, opening())
    before = gateway.log
    with serving(folder, kv) as gateway:
        return Talk(first, go_on(gateway, first), f"{before}\n{gateway.log}")


WAYS: dict[str, Callable[[Path, str], Talk]] = {
    "swap to another": swap,
    "growth": growth,
    "idle stop": idle_stop,
    "restart, persist": restart,
}


def play(way: Callable[[Path, str], Talk]) -> Pair:
    """Cold first, so that what the disk has cached is the same for both."""
    with tempfile.TemporaryDirectory(prefix="carryover-") as name, private_cache(Path(name)):
        folder = Path(name)
        cold = way(folder, "false")
        kept = f"{{ directory = {lua_string(str(folder / 'kv'))}, persist = true }}"
        return Pair(cold, way(folder, kept))


@contextmanager
def private_cache(folder: Path) -> Iterator[None]:
    """Nothing of the user's own is touched."""
    name = "XDG_CACHE_HOME"
    before = os.environ.get(name)
    os.environ[name] = str(folder / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# -- tables -----------------------------------------------------------------------------------


def times(results: dict[str, list[Pair]]) -> Table:
    """A load is in both, so there is also a ratio without them."""
    shown = Table(title="the second turn's time to first byte in s, and what it consists of")
    shown.add_column("Engine goes by", no_wrap=True)
    for heading in ("cold", "load", "read", "carried", "queue", "load", "read", "rest", "ratio"):
        shown.add_column(heading, justify="right")
    shown.add_column("To reach")
    shown.add_column("without loads", justify="right")
    for name, pairs in results.items():
        cold, carried = _medians([p.cold for p in pairs]), _medians([p.carried for p in pairs])
        rest_s = carried.first_byte_s - carried.queue_s - carried.load_s - carried.read_s
        bare = (cold.first_byte_s - cold.load_s) / (carried.first_byte_s - carried.load_s)
        seconds = (cold.first_byte_s, cold.load_s, cold.read_s, *carried, rest_s)
        ratio = f"{cold.first_byte_s / carried.first_byte_s:.1f} x"
        target = f"≥ {TO_REACH:g} x"
        shown.add_row(name, *(f"{s:.2f}" for s in seconds), ratio, target, f"{bare:.1f} x")
    return shown


class Medians(NamedTuple):
    """Of the fields of Turn with these names."""

    first_byte_s: float
    queue_s: float
    load_s: float
    read_s: float


def _medians(talks: Sequence[Talk]) -> Medians:
    columns = zip(*(talk.second[1:5] for talk in talks), strict=True)
    return Medians(*map(statistics.median, columns))


def proofs(results: dict[str, list[Pair]]) -> Table:
    shown = Table(title="the second turn: tokens, and what was saved and restored for it")
    shown.add_column("Engine goes by", no_wrap=True)
    for heading in ("context", "prompt", "cached", "(cold)"):
        shown.add_column(heading, justify="right")
    shown.add_column("X-Gateway-Kv", no_wrap=True)
    for heading in ("saved", "restored", "same answer"):
        shown.add_column(heading)
    for name, pairs in results.items():
        for cold, carried in pairs:
            second = carried.second
            is_same = (cold.first.text, cold.second.text) == (carried.first.text, second.text)
            shown.add_row(
                name, f"{carried.first.variant} → {second.variant}",
                str(second.prompt_tokens), str(second.cached_tokens),
                str(cold.second.cached_tokens), second.kv.replace(" ", "\n") or "-",
                _logged(r"saved (\d+) tokens of slot \d+, (.*? MB in .*? ms)", carried.log),
                _logged(r"restored (\d+) tokens into slot \d+ in (.*? ms)", carried.log),
                "yes" if is_same else f"no: {second.text!r}, cold: {cold.second.text!r}",
            )  # fmt: skip
    return shown


def _logged(pattern: str, log: str) -> str:
    return "\n".join(f"{tokens}: {cost}" for tokens, cost in re.findall(pattern, log)) or "-"


def tables(rounds: int = ROUNDS) -> list[Table]:
    results = {name: [play(way) for _ in range(rounds)] for name, way in WAYS.items()}
    return [times(results), proofs(results)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carryover")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    wide_console().print(*tables(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
