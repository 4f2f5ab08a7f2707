"""The KV cache across swaps, growth, idle stops and restarts, with the real engine."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.harness import (
    GatewayProcess,
    configuration,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # each has gateways of its own; engine/kv counts the lines

# More than the least that is kept, and as few as possible: each takes its time to read.
LONG = " ".join(f"Fact {i}: the number {i} follows {i - 1}." for i in range(1, 22))
MOST = 280  # of its tokens, that a restore brings back
Messages = list[dict[str, str]]


def says(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def ask(gateway: GatewayProcess, name: str, messages: Messages) -> httpx.Response:
    response = gateway.chat(name, messages=messages, max_tokens=8, temperature=0)
    assert response.status_code == 200, response.text
    return response


def answer_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def cached_of(response: httpx.Response) -> int:
    return int(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def first_turn(gateway: GatewayProcess, name: str = "a", text: str = LONG) -> Messages:
    """Ask, and return the conversation with the next question."""
    messages = says(text)
    answer = answer_of(ask(gateway, name, messages))
    return [*messages, {"role": "assistant", "content": answer}, *says("Go on.")]


def two_models(tmp_path: Path, file: Path | None, **carryover: str) -> str:
    directory = f'"{tmp_path / "kv"}"'
    table = ", ".join(f"{k} = {v}" for k, v in {"directory": directory, **carryover}.items())
    return configuration(
        model("a", real_variant(1024, file=file), real_variant(2048, file=file)),
        model("b", real_variant(1024, file=file)),
        kv_carryover=f"{{ {table} }}",
    )


def kv_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kv").glob("gateway-kv-*.bin"))


def totals(gateway: GatewayProcess) -> dict[str, Any]:
    with gateway.client() as client:
        found: dict[str, Any] = client.get("/gateway/engines").json()["kv_carryover"]
        return found


@pytest.fixture
def gateway(tmp_path: Path, tiny: Path) -> Any:
    with running_gateway(tmp_path, two_models(tmp_path, tiny)) as running:
        yield running


@pytest.fixture
def talking(tmp_path: Path) -> Any:
    """Its model is one that says something."""
    with running_gateway(tmp_path, two_models(tmp_path, None)) as running:
        yield running


def test_a_conversation_survives_a_swap_and_answers_as_it_would_have(
    talking: GatewayProcess, tmp_path: Path
) -> None:
    conversation = first_turn(talking)
    away = ask(talking, "b", says("Hi"))
    saved = int(re.fullmatch(r"restored=0 saved=(\d+)", away.headers["X-Gateway-Kv"])[1])  # type: ignore[index]
    assert saved > MOST
    (file,) = kv_files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    back = ask(talking, "a", conversation)
    spared = cached_of(back)
    assert spared >= saved - 1
    assert back.headers["X-Gateway-Kv"] == f"restored={saved} saved=0 spared={spared}"
    assert totals(talking)["restores"] == 1
    assert totals(talking)["not_helpful_for"] == {}

    ask(talking, "b", says("Hi"))
    (file,) = kv_files(tmp_path)  # the longer conversation took the place of its beginning
    file.unlink()
    cold = ask(talking, "a", conversation)
    assert cached_of(cold) == 0
    assert answer_of(cold) == answer_of(back)
    assert talking.stop() == 0
    assert kv_files(tmp_path) == []


def test_a_conversation_grows_into_a_larger_variant_with_its_cache(
    gateway: GatewayProcess,
) -> None:
    conversation = first_turn(gateway)
    conversation[-1]["content"] = f"{LONG} {LONG} {LONG} Go on."
    grown = ask(gateway, "a", conversation)
    assert grown.headers["X-Gateway-Variant"] == "2048"
    assert cached_of(grown) > MOST


def test_a_conversation_survives_an_idle_stop(tmp_path: Path, tiny: Path) -> None:
    config = configuration(model("a", real_variant(1024, file=tiny)), engine_idle_timeout="0.5")
    with running_gateway(tmp_path, config) as gateway:
        conversation = first_turn(gateway)
        gateway.wait_for_line("idle for 0.5 s")
        assert eventually(lambda: not gateway.engines(), 10)
        assert cached_of(ask(gateway, "a", conversation)) > MOST
        gateway.wait_for_line("saved .* tokens of slot 0")


def test_with_persist_a_conversation_survives_the_gateway(tmp_path: Path, tiny: Path) -> None:
    config = two_models(tmp_path, tiny, persist="true")
    with running_gateway(tmp_path, config) as gateway:
        conversation = first_turn(gateway)
        assert gateway.stop() == 0
    assert len(kv_files(tmp_path)) == 1
    with running_gateway(tmp_path, config) as gateway:
        assert cached_of(ask(gateway, "a", conversation)) > MOST


def test_the_prompt_that_waits_decides_what_is_restored(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    first = first_turn(gateway)
    ask(gateway, "b", says("Hi"))
    ask(gateway, "a", says(LONG[::-1]))  # used later, and of no use to the first
    ask(gateway, "b", says("Hi"))
    assert len(kv_files(tmp_path)) == 2
    assert cached_of(ask(gateway, "a", first)) > MOST


def test_conversations_take_turns_on_one_slot(tmp_path: Path, tiny: Path) -> None:
    config = configuration(model("a", real_variant(2048, file=tiny), kv_conversations="2"))
    with running_gateway(tmp_path, config) as gateway:
        first = first_turn(gateway)
        second = first_turn(gateway, text=LONG[::-1])
        returned = ask(gateway, "a", first)
        assert re.fullmatch(r"restored=\d+ saved=\d+ spared=\d+", returned.headers["X-Gateway-Kv"])
        assert cached_of(returned) > MOST
        assert cached_of(ask(gateway, "a", second)) > MOST
        assert len(gateway.engines()) == 1


# -- faults -----------------------------------------------------------------------------------


def test_a_full_disk_costs_the_cache_and_not_the_swap(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    conversation = first_turn(gateway)
    (engine,) = gateway.engines()
    # As on a full disk, the file ends in the middle and the write fails.
    psutil.Process(engine.pid).rlimit(psutil.RLIMIT_FSIZE, (2**20, 2**20))
    ask(gateway, "b", says("Hi"))
    gateway.wait_for_line("slot 0 could not be saved: Unable to save slot")
    assert [*(tmp_path / "kv").glob("gateway-kv-*.*")] == []
    assert cached_of(ask(gateway, "a", conversation)) == 0
    assert totals(gateway)["failed_saves"] == 1


@pytest.mark.parametrize("fault", ["truncated", "of another model", "gone"])
def test_a_file_that_is_not_what_was_saved_is_never_restored(
    gateway: GatewayProcess, tmp_path: Path, fault: str
) -> None:
    conversation = first_turn(gateway)
    ask(gateway, "b", says("Hi"))
    (file,) = kv_files(tmp_path)
    if fault == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif fault == "gone":
        file.unlink()
    else:
        before = file.stat()
        file.write_bytes(bytes(before.st_size))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    back = ask(gateway, "a", conversation)
    assert cached_of(back) == 0
    gateway.wait_for_line("saved tokens are dropped: its file|are dropped: .*gone|are dropped")
    assert totals(gateway)["failed_restores"] == 1
    assert "did not start" not in gateway.log


def test_a_directory_that_cannot_be_used_switches_it_off(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "kv").write_text("a file")
    with running_gateway(tmp_path, two_models(tmp_path, tiny)) as gateway:
        gateway.wait_for_line("KV carry-over is off: ")
        conversation = first_turn(gateway)
        ask(gateway, "b", says("Hi"))
        assert cached_of(ask(gateway, "a", conversation)) == 0


def test_a_model_may_be_left_out(tmp_path: Path, tiny: Path) -> None:
    config = configuration(
        model("a", real_variant(1024, file=tiny), kv_carryover="false"),
        model("b", real_variant(1024, file=tiny)),
    )
    with running_gateway(tmp_path, config) as gateway:
        conversation = first_turn(gateway)
        ask(gateway, "b", says("Hi"))
        assert "X-Gateway-Kv" not in ask(gateway, "a", conversation).headers
        assert "--slot-save-path" not in " ".join(gateway.engines()[0].cmdline())


def test_an_engine_that_sleeps_is_saved_before_and_not_woken_for_it(
    tmp_path: Path, tiny: Path
) -> None:
    """What falls asleep forgets its slots; a look at them would load its model again."""
    sleepy = real_variant(1024, "--sleep-idle-seconds", "4", file=tiny)
    config = configuration(
        model("a", sleepy),
        model("b", real_variant(1024, file=tiny)),
        kv_carryover=f'{{ directory = "{tmp_path / "kv"}" }}',
    )
    with running_gateway(tmp_path, config) as gateway:
        conversation = first_turn(gateway)
        assert eventually(lambda: "entering sleeping state" in gateway.log, 20)
        assert totals(gateway)["saves"] == 1
        ask(gateway, "b", says("Hi"))  # takes its place
        assert gateway.log.count("exiting sleeping state") == 0
        back = ask(gateway, "a", conversation)
        assert cached_of(back) > MOST
        assert totals(gateway)["restores"] == 1
