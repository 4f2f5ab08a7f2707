"""The KV cache of engines that hang or crash while they save or restore it, as real processes."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.harness import (
    GatewayProcess,
    configuration,
    fake_model,
    lua_string,
    running_gateway,
    wait_until_gone,
)


def slots(tmp_path: Path) -> Path:
    """The user's own folder, which the arguments name: the gateway adds none."""
    folder = tmp_path / "slots"
    folder.mkdir(exist_ok=True)
    return folder


def two_models(tmp_path: Path, *args: str, **server: str) -> str:
    folder = str(slots(tmp_path))
    gguf = tmp_path / "model.gguf"
    if not gguf.exists():  # a new one would be another model
        gguf.write_bytes(b"GGUF, as far as a fingerprint is concerned")
    first = fake_model("a", "--model", str(gguf), "--slot-save-path", folder, *args)
    carryover = f"{{ directory = {lua_string(str(tmp_path / 'kv'))}, persist = true }}"
    return configuration(first, fake_model("b"), kv_carryover=carryover, **server)


def swap_away(gateway: GatewayProcess) -> None:
    assert gateway.chat("b").status_code == 200


def test_an_engine_that_hangs_in_its_save_holds_up_the_swap_only_so_long(tmp_path: Path) -> None:
    config = two_models(tmp_path, "--hang-in-save", engine_stop_timeout="1")
    with running_gateway(tmp_path, config) as gateway:
        assert gateway.chat("a").status_code == 200
        swap_away(gateway)
        gateway.wait_for_line("saving took over 1 s, gave up")
        assert [*slots(tmp_path).iterdir()] == []


def test_a_gateway_killed_in_a_save_leaves_no_file_that_is_ever_restored(tmp_path: Path) -> None:
    config = two_models(tmp_path, "--hang-in-save", engine_stop_timeout="20")
    with running_gateway(tmp_path, config) as gateway:
        assert gateway.chat("a").status_code == 200
        gateway.send_signal(signal.SIGTERM)
        gateway.wait_for_line("fake engine: saving")
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        assert wait_until_gone([*gateway.seen.values()], 5) == []
    config = two_models(tmp_path)
    with running_gateway(tmp_path, config) as gateway:
        response = gateway.chat("a")
        assert response.status_code == 200
        assert "X-Gateway-Kv" not in response.headers


def test_an_engine_that_dies_of_a_restore_is_started_again_without_it(tmp_path: Path) -> None:
    config = two_models(tmp_path, "--crash-on-restore")
    with running_gateway(tmp_path, config) as gateway:
        assert gateway.chat("a").status_code == 200
        swap_away(gateway)
        gateway.wait_for_line("saved 1000 tokens of slot 0")
        response = gateway.chat("a")
        assert response.status_code == 200, gateway.log
        gateway.wait_for_line("tokens are dropped: the engine ended while it restored them")
        gateway.wait_for_line("starting again, without a restore")
        assert "did not start" not in gateway.log
        swap_away(gateway)
        assert gateway.chat("a").status_code == 200


def test_the_users_own_folder_for_slots_is_used_and_left_clean(tmp_path: Path) -> None:
    with running_gateway(tmp_path, two_models(tmp_path)) as gateway:
        assert gateway.chat("a").status_code == 200
        swap_away(gateway)
        back = gateway.chat("a")
        assert back.headers["X-Gateway-Kv"] == "restored=1000 saved=0"
        assert [*slots(tmp_path).iterdir()] == []
