"""What `trio-gateway top` shows of a feed, without a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from trio_gateway.commands.feed_state import FeedEvent, FeedState, events_in
from trio_gateway.commands.tables import bar
from trio_gateway.commands.top_view import KEYS, Choice, view

NOW_S = 1_000.0
WAITING: dict[str, Any] = {
    "id": "aaaaaaaaaaaaaaaa", "endpoint": "chat/completions", "arrived_s": NOW_S - 5,
    "stage": "waiting", "model": "gemma", "client": "editor", "position": 1,
    "sentence": "waits for 1 answer of qwen3 to end, then gemma loads",
}  # fmt: skip
RUNNING: dict[str, Any] = {
    "id": "bbbbbbbbbbbbbbbb", "endpoint": "chat/completions", "arrived_s": NOW_S - 20,
    "stage": "answering", "model": "qwen3", "variant": "8192", "decision": "reused",
    "generated_tokens": 120, "speed": 42.5, "client": "agent",
}  # fmt: skip
SNAPSHOT: dict[str, Any] = {
    "run": "r", "version": "0.1.0", "now_s": NOW_S, "admin": True,
    "pools": [{"name": "primary", "engines_max": 1, "memory_bytes": 24 << 30,
               "used_bytes": 12 << 30, "other_bytes": 6 << 30}],
    "engines": [{"engine": 1, "model": "qwen3", "variant": "8192", "pool": "primary",
                 "state": "ready", "context": 8192, "slots": 2, "leases": 1,
                 "memory_bytes": 12 << 30, "speed": 42.5, "loading_s": None,
                 "next": "drains for gemma: 1 answer is running"}],
    "requests": [WAITING, RUNNING],
    "recent": [{**RUNNING, "id": "cccccccccccccccc", "stage": "done", "outcome": "ok",
                "finish": "stop", "took_s": 3.0}],
    "timeline": [],
    "models": [{"name": "qwen3", "pool": "primary", "state": "loaded", "pinned": True,
                "variants": [{"context": 8192}]}],
    "held": {}, "captures": None,
}  # fmt: skip


def shown(state: FeedState, choice: Choice | None = None, note: str = "", **more: bool) -> str:
    console = Console(width=160, height=60, force_terminal=False, markup=False)
    with console.capture() as captured:
        given = choice or Choice()
        console.print(
            view(state, given, NOW_S, (160, 60), note, shows_models=more.get("models", False))
        )
    return captured.get()


def begun() -> FeedState:
    state = FeedState()
    state.apply(FeedEvent("snapshot", SNAPSHOT))
    return state


def test_before_there_is_anything() -> None:
    assert "Waiting for the gateway" in shown(FeedState())


def test_everything_that_happens_is_there() -> None:
    text = shown(begun())
    for part in (
        "12.0 GiB of 24.0 GiB", "drains for gemma: 1 answer is running", "1 of 2",
        "waits for 1 answer of qwen3 to end, then gemma loads", "5.0 s", "42.5 t/s",
        "Waiting: 1", "Running: 1", "Last requests", "stop", KEYS,
    ):  # fmt: skip
        assert part in text


def test_what_ends_moves_to_the_last_requests() -> None:
    state = begun()
    state.apply(FeedEvent("request", {**RUNNING, "stage": "done", "outcome": "broken_off",
                                      "error": "engine_failed"}))  # fmt: skip
    text = shown(state)
    assert "Running: 0" in text
    assert "broken off: engine_failed" in text


def test_an_engine_that_is_gone_is_not_shown() -> None:
    state = begun()
    state.apply(FeedEvent("engine_gone", {"engine": 1}))
    assert "None runs: the next request starts one." in shown(state)


def test_a_key_that_is_no_admins_is_not_told_that_nothing_runs() -> None:
    state = FeedState()
    own = {**SNAPSHOT, "admin": False, "pools": [], "engines": []}
    state.apply(FeedEvent("snapshot", own))
    text = shown(state)
    assert "This key is no admin's" in text
    assert "None runs" not in text
    assert "waits for 1 answer of qwen3 to end" in text


def test_a_narrow_terminal_still_says_why_and_what_comes_next() -> None:
    console = Console(width=40, height=60, force_terminal=False, markup=False)
    with console.capture() as captured:
        console.print(view(begun(), Choice(), NOW_S, (40, 60), "", shows_models=False))
    words = " ".join(captured.get().split())
    for part in ("waits for 1", "drains for", "running"):
        assert part in words
    assert "…" not in words


def test_models_are_shown_on_demand() -> None:
    assert "Models" not in shown(begun())
    assert "Models" in shown(begun(), models=True)


def test_a_note_stands_in_the_foot() -> None:
    assert "The gateway has ended." in shown(begun(), note="The gateway has ended.")


def test_the_choice_moves_over_what_is_under_way_and_stops_at_the_ends() -> None:
    state, choice = begun(), Choice()
    seen = []
    for step in (1, 1, 1, -1, -1):
        choice.move(state, step)
        seen.append((choice.id or "")[0])
    assert seen == ["a", "b", "b", "a", "a"]


def test_names_and_texts_cannot_write_on_the_terminal() -> None:
    state = begun()
    state.apply(FeedEvent("request", {**WAITING, "client": "\x1b[2Jevil [red]x"}))
    text = shown(state)
    assert "\x1b" not in text
    assert "[red]x" in text


def test_a_bar_has_ours_then_others_then_what_is_free() -> None:
    assert bar(50, 100, 25, 8).plain == "████▒▒░░"
    assert bar(500, 100, 25, 8).plain == "████████"
    assert bar(1, None, None, 8).plain == ""


async def lines(*given: str) -> AsyncIterator[str]:
    for line in given:
        yield line


@pytest.mark.trio
async def test_events_are_read_and_comments_are_not() -> None:
    stream = lines(": hello", "", "id: r-1", "event: engine_gone", 'data: {"engine":', "data: 3}",
                   "", "event: pool", 'data: {"name":"p"}', "")  # fmt: skip
    assert [event async for event in events_in(stream)] == [
        FeedEvent("engine_gone", {"engine": 3}),
        FeedEvent("pool", {"name": "p"}),
    ]
