"""What `trio-gateway serve` says when it is ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.configurations import SMALLEST, smallest
from tests.support.harness import SERVE, running_gateway
from trio_gateway.commands.serve import say_ready
from trio_gateway.config.schema import ListenAddress
from trio_gateway.log import FORMAT_VARIABLE

ADDRESS = ListenAddress("127.0.0.1", 7777)


def said(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: str, *incomplete: str
) -> list[str]:
    say_ready(smallest(folder, changes), [ADDRESS], incomplete)
    return capsys.readouterr().out.splitlines()


def test_it_shows_where_it_listens_and_a_command_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(tmp_path, capsys, "") == [
        "listening on http://127.0.0.1:7777",
        "",
        "Ready. Base URL for clients: http://127.0.0.1:7777/v1",
        "Models: m",
        "Try it:",
        "  curl -N http://127.0.0.1:7777/v1/chat/completions -H 'Content-Type: application/json' "
        '-d \'{"model":"m","stream":true,"messages":[{"role":"user",'
        '"content":"Name the capital city of France."}]}\'',
        "",
    ]


EMBEDS = "model.variants = { merge_tables(variant, { args = { '--embeddings' } }) } "
MORE = "models[2] = merge_tables(model, { name = 'n' }) "


@pytest.mark.parametrize(
    ("changes", "incomplete", "tried"),
    [
        (MORE, [], "m"),
        (MORE, ["m"], "n"),
        (MORE + "model.hidden = true", [], "n"),
        (MORE + "model.hidden = true", ["n"], "m"),
        (MORE + "model.endpoints = { 'embeddings' }", [], "n"),
        (MORE + EMBEDS, [], "n"),
    ],
)  # fmt: skip
def test_the_command_to_try_has_a_model_that_can_answer(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: str,
    incomplete: list[str],
    tried: str,
) -> None:
    (command,) = [line for line in said(tmp_path, capsys, changes, *incomplete) if "curl" in line]
    assert f'"model":"{tried}"' in command


def test_there_is_no_command_where_no_model_can_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(tmp_path, capsys, "", "m")
    assert lines[-1] == "Models: m"


@pytest.mark.processes
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_log_for_programs_is_an_object_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    command = [*SERVE[:-1], "--log-format", "json"]
    if by_variable:
        command = [*SERVE[:-1]]
        monkeypatch.setenv(FORMAT_VARIABLE, "json")
    config = f"{SMALLEST} server.listen_v4 = '127.0.0.1:0'"
    with running_gateway(tmp_path, config, command=command) as gateway:
        pass
    said = [json.loads(line) for line in gateway.log.splitlines()]
    assert all({"time", "level", "logger", "message"} == line.keys() for line in said)
    assert any(line["message"].startswith("Ready. Base URL") for line in said)
    assert said[-1]["message"].startswith("SIGTERM: stopping")


@pytest.mark.processes
def test_what_is_missing_is_a_warning_and_the_other_models_are_served(tmp_path: Path) -> None:
    config = (
        f"{SMALLEST} server.listen_v4 = '127.0.0.1:0' variant.binary = '/no/such/server' {MORE}"
    )
    with running_gateway(tmp_path, config) as gateway:
        gateway.wait_for_line(r"WARNING .*: model \"m\": binary: /no/such/server does not exist")
