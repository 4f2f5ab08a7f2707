"""The KV cache across swaps, growth, stops and restarts, in a gateway on a virtual clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, DONE, Clock, chat, header, stream
from tests.support.carrying import (
    END_S,
    GRACE_S,
    LAST_S,
    NEXT,
    STOP_S,
    A,
    B,
    Files,
    ask,
    carryover,
    kv_of,
    shut_down_within,
)
from tests.support.fake_slots import ids_of, refuse, run_inline, slot_stack, words
from tests.support.fakes import FakeKind
from trio_gateway.engine.clients.llamacpp import LlamaCppKind


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    caplog.set_level("INFO")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- the way of a conversation ---------------------------------------------------------------


async def test_a_conversation_is_carried_over_a_swap_away_and_back(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        assert kv_of(await ask(stack, "a", A)) is None
        assert kv_of(await ask(stack, "b", B)) == "restored=0 saved=300"
        back = await ask(stack, "a", f"{A} {NEXT}")
        assert kv_of(back) == "restored=300 saved=300"
        assert kv_of(await ask(stack, "a", f"{A} {NEXT} {NEXT}")) is None  # nothing was moved
        assert kv_of(await ask(stack, "b", f"{B} {NEXT}")) == "restored=300 saved=340"


async def test_a_conversation_is_there_before_its_request_is_let_in(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        let_in = list[int]()

        async def note(path: Path) -> None:
            let_in.append(len(stack.engines.requests))

        stack.engines.faults.before_restore = note
        await ask(stack, "a", f"{A} {NEXT}")
        assert let_in == [2]


async def test_a_conversation_outlives_an_idle_stop(autojump_clock: Clock, files: Files) -> None:
    async with slot_stack(files.config(files.model("a", idle_s=60.0))) as stack:
        await ask(stack, "a", A)
        await trio.sleep(60 + 2)
        assert stack.engines.alive == []
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) == "restored=300 saved=0"


@pytest.mark.parametrize("path", ["/lora-adapters?model=a", "/upstream/a/lora-adapters"])
async def test_nothing_is_kept_of_an_engine_whose_lora_scales_were_changed(
    autojump_clock: Clock, files: Files, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The next one begins with others, and would go on with what these have computed."""
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)
    with_adapter = files.model("a", args=("--lora", "x.gguf"))
    async with slot_stack(files.config(with_adapter, files.model("b"))) as stack:
        await ask(stack, "a", A)
        assert (await stack.post(path, b'[{"id": 0, "scale": 0.5}]')).status == 200
        assert kv_of(await ask(stack, "b", B)) is None
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) == "restored=0 saved=300"
        # That one has the scales that it was started with.
        await ask(stack, "b", B)
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) == "restored=320 saved=300"


async def test_a_conversation_moves_into_a_larger_context(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.config(files.model("a", 2048, 16384))) as stack:
        await ask(stack, "a", A)
        stack.engines.counted = 3000
        grown = await ask(stack, "a", f"{A} {words('long', 1000)}")
        assert header(grown, "X-Gateway-Variant") == "16384"
        assert kv_of(grown) == "restored=300 saved=300"


async def test_a_conversation_outlives_the_gateway_with_persist(
    autojump_clock: Clock, files: Files
) -> None:
    given = files.two_models(persist=True)
    async with slot_stack(given) as stack:
        await ask(stack, "a", A)
        await shut_down_within(stack, GRACE_S + STOP_S + LAST_S)
    async with slot_stack(given) as stack:
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) == "restored=300 saved=0"


async def test_without_persist_a_gateway_leaves_nothing_behind(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        assert files.kept == [".bin", ".json"]
        assert await shut_down_within(stack, STOP_S) == pytest.approx(END_S)
    assert files.kept == []


async def test_what_others_had_an_engine_write_goes_with_the_engine(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        slots = files.store / "gateway-kv-slots"
        (slots / "theirs.bin").write_bytes(b"a conversation")
        await ask(stack, "b", B)
        assert [*slots.iterdir()] == []
        assert slots.stat().st_mode & 0o777 == 0o700


async def test_a_model_that_is_not_to_be_carried_over_is_not(
    autojump_clock: Clock, files: Files
) -> None:
    given = files.config(files.model("a", kv_carryover=False), files.model("b"))
    async with slot_stack(given) as stack:
        await ask(stack, "a", A)
        assert kv_of(await ask(stack, "b", B)) is None
        assert kv_of(await ask(stack, "a", A)) == "restored=0 saved=300"  # of b


async def test_conversations_take_turns_on_one_engine(autojump_clock: Clock, files: Files) -> None:
    async with slot_stack(files.config(files.model("a", kv_conversations=2))) as stack:
        assert kv_of(await ask(stack, "a", A)) is None
        assert kv_of(await ask(stack, "a", B)) == "restored=0 saved=300"
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) == "restored=300 saved=300"
        assert stack.held("a") == [ids_of(f"{A} {NEXT}")]
        assert len(stack.engines.processes) == 1


async def test_what_was_done_is_counted_on_the_engines_page(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models()) as stack:
        assert await carryover(stack) == {
            "active": True, "files": 0, "bytes": 0, "max_bytes": 4 * 2**30,
            "not_helpful_for": {}, "saves": 0, "saved_tokens": 0, "saved_bytes": 0,
            "failed_saves": 0, "restores": 0, "restored_tokens": 0, "restored_bytes": 0,
            "failed_restores": 0, "unhelpful_restores": 0,
        }  # fmt: skip
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        stack.engines.faults.before_save = refuse
        await ask(stack, "a", f"{A} {NEXT}")
        stack.engines.faults.before_restore = refuse
        page = await carryover(stack)
        assert page["bytes"] == sum(path.stat().st_size for path in files.store.glob("*.bin"))
        counts = ("files", "saves", "saved_tokens", "failed_saves", "restores", "restored_tokens")
        assert [page[name] for name in counts] == [1, 1, 300, 1, 1, 300]
        engines = json.loads((await stack.get("/gateway/engines")).content)["engines"]
        assert [(e["model"], e["kv_restored_tokens"]) for e in engines] == [("a", 300)]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_a_first_answer_that_was_not_helped_ends_the_saving_of_its_model(
    autojump_clock: Clock, files: Files, streams: bool
) -> None:
    async with slot_stack(files.two_models()) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        timings = {"cache_n": 10, "prompt_n": 310, "prompt_ms": 100.0}
        answer = json.dumps({"choices": [], "timings": timings}).encode()
        event = b"data: " + answer + b"\n\n"
        stack.engines.scripts = [[event[:20], event[20:] + DONE] if streams else [answer]]
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"{A} {NEXT}"}]
        if streams:
            await stream(stack, chat("a", messages=messages, stream=True))
        else:
            await stack.post(CHAT, chat("a", messages=messages))
        why = "only 10 of 300 restored tokens were used; this model's slots are not saved again"
        page = await carryover(stack)
        assert {m: text.startswith(why) for m, text in page["not_helpful_for"].items()} == {
            "a": True
        }
        assert kv_of(await ask(stack, "b", f"{B} {NEXT}")) == "restored=300 saved=0"


@pytest.mark.parametrize("how", ["--swa-full", "LLAMA_ARG_SWA_FULL"])
async def test_with_all_of_a_sliding_window_s_cache_nothing_is_carried_over(
    autojump_clock: Clock,
    files: Files,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What an engine saves then lacks what it would go back to: it answers wrongly, in silence."""
    args = (how,) if how.startswith("-") else ()
    if not args:
        monkeypatch.setenv(how, "1")
    given = files.config(files.model("a", args=args), files.model("b", args=args))
    async with slot_stack(given) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        assert kv_of(await ask(stack, "a", f"{A} {NEXT}")) is None
        assert (await carryover(stack))["saves"] == 0
    assert f"no KV carry-over with {how}: " in caplog.text


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_the_header_says_how_much_of_the_prompt_was_spared(
    autojump_clock: Clock, files: Files, streams: bool
) -> None:
    """By the answer; of a stream, whose end says it too late, by the slot that works."""
    async with slot_stack(files.two_models(), slots=2) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        timings = {"cache_n": 10, "prompt_n": 310, "prompt_ms": 100.0}
        answer = json.dumps({"choices": [], "timings": timings}).encode()
        if streams:
            stack.engines.scripts = [[b'data: {"choices": []}\n\n', DONE]]
            stack.engines.faults.at_work = {1: 10}
        else:
            stack.engines.scripts = [[answer]]
        messages = [{"role": "user", "content": f"{A} {NEXT}"}]
        response = await stack.post(CHAT, chat("a", messages=messages, stream=streams))
        assert kv_of(response) == "restored=300 saved=300 spared=10"


async def test_where_the_engine_does_not_say_what_was_spared_the_header_does_not(
    autojump_clock: Clock, files: Files
) -> None:
    async with slot_stack(files.two_models(), slots=2) as stack:
        await ask(stack, "a", A)
        await ask(stack, "b", B)
        stack.engines.scripts = [[b'data: {"choices": []}\n\n', DONE]]
        stack.engines.faults.at_work = {0: 300, 1: 0}  # which of them is it?
        messages = [{"role": "user", "content": f"{A} {NEXT}"}]
        response = await stack.post(CHAT, chat("a", messages=messages, stream=True))
        assert kv_of(response) == "restored=300 saved=300"
