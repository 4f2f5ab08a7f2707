"""`trio-gateway explain`, with and without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.harness import (
    chat_body,
    configuration,
    free_port,
    model,
    real_variant,
    running_gateway,
)
from trio_gateway.commands.root import root

pytestmark = pytest.mark.processes

TEXT = "Fact: the number follows another. " * 40


def explain(tmp_path: Path, request: object, port: int, **server: str) -> Result:
    config = tmp_path / "explain.lua"
    listen = f'"127.0.0.1:{port}"'
    config.write_text(
        configuration(model("m", real_variant(512), real_variant(2048)), listen=listen, **server)
    )
    body = request if isinstance(request, str) else json.dumps(request)
    return CliRunner().invoke(root, ["explain", "-c", str(config), "-"], input=body)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    result = explain(tmp_path, "\ufeff" + json.dumps(chat_body("nobody", "Hi")), free_port())
    assert 'there is no model "nobody"' in result.output


def test_without_a_gateway_it_says_what_a_fresh_one_would_do(tmp_path: Path) -> None:
    result = explain(tmp_path, chat_body("m", TEXT), free_port())
    assert result.exit_code == 0, result.output
    lines = {line[:21].strip(): line[21:].strip() for line in result.output.splitlines()}
    assert lines["Model"] == "m, chat/completions"
    assert lines["Prompt, counted"].endswith("tokens, by vocabulary")
    assert lines["Choice"] == "512: the smallest that holds the counted tokens"
    assert lines["Variants"] == "512 (fits), 2048 (fits)"
    assert lines["Engine"] == "started, not running"
    assert lines["Expected wait"] == "unknown: its load has not been measured yet"
    assert "no gateway is running" in result.output


def test_what_is_saved_for_the_next_gateway_is_found_without_one(tmp_path: Path) -> None:
    carryover = f'{{ directory = "{tmp_path / "kv"}", persist = true }}'
    result = explain(tmp_path, chat_body("m", "Hi"), free_port(), kv_carryover=carryover)
    assert "nothing is saved for this model" in result.output


def test_a_running_gateway_is_asked(tmp_path: Path) -> None:
    port = free_port()
    config = configuration(
        model("m", real_variant(512), real_variant(2048)), listen=f'"127.0.0.1:{port}"'
    )
    with running_gateway(tmp_path, config):
        result = explain(tmp_path, chat_body("m", TEXT), port)
        assert f"(the gateway at http://127.0.0.1:{port})" in result.output
        assert "512: the smallest that holds the counted tokens" in result.output


def test_a_wrong_request_is_an_error_with_the_reason(tmp_path: Path) -> None:
    for request, reason in (
        ("no json", "not a JSON object"),
        ({"model": "m"}, "no `messages`, `prompt`, `input`,"),
        ({"model": "n", "prompt": "x"}, 'there is no model "n"'),
    ):
        result = explain(tmp_path, request, free_port())
        assert (result.exit_code, reason in result.output) == (1, True), result.output


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"messages": [{"role": "user", "content": TEXT}], "options": {"num_ctx": 64}}, "chat"),
        ({"messages": [{"role": "user", "content": TEXT}], "system": "Be kind."}, "chat"),
        ({"input": [{"role": "user", "content": TEXT}], "instructions": "Be kind."}, "chat"),
        ({"input": [TEXT]}, "embeddings"),
        ({"prompt": TEXT, "n_predict": 8}, "completions"),
    ],
)
def test_a_request_is_told_by_its_fields(
    tmp_path: Path, request_: dict[str, object], kind: str
) -> None:
    result = explain(tmp_path, {"model": "m", **request_}, free_port())
    assert result.exit_code == 0, result.output
    assert f"m, {kind}" in result.output


def test_a_request_that_is_too_long_shows_the_refusal(tmp_path: Path) -> None:
    result = explain(tmp_path, chat_body("m", TEXT * 100, max_tokens=4000), free_port())
    assert result.exit_code == 0
    assert "this model's maximum context length is 2048 tokens (m)" in " ".join(
        result.output.split()
    )
