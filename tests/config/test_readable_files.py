"""A configuration with keys in plain text is for its owner's eyes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_gateway.app import create_app
from trio_gateway.commands.root import root
from trio_gateway.config.key_hash import hash_of
from trio_gateway.config.loader import ConfigLoader
from trio_gateway.config.readable_files import readable_secrets

KEY = "tg-plain-0123456789"
MODELS = 'models = { { name = "m", engine = presets.engines.%s, %s variants = { { %s } } } }'
LOCAL = MODELS % ("llamacpp", "", 'binary = "sh", args = { %s }, context = 8192, %s')
PLAIN = f'server = {{ api_keys = {{ "{KEY}" }} }}\n' + LOCAL % ("", "")


def written(folder: Path, text: str, mode: int, name: str = "gateway.lua") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def warnings_of(path: Path) -> list[str]:
    return readable_secrets(ConfigLoader(path).load())


@pytest.mark.parametrize(
    ("mode", "readers"),
    [
        (0o644, "every user"), (0o604, "every user"), (0o666, "every user"), (0o755, "every user"),
        (0o640, "its group"), (0o660, "its group"), (0o600, None), (0o400, None), (0o611, None),
    ],
)  # fmt: skip
def test_who_can_read_a_file_with_a_plain_key(
    tmp_path: Path, mode: int, readers: str | None
) -> None:
    path = written(tmp_path, PLAIN, mode)
    found = warnings_of(path)
    if readers is None:
        assert found == []
    else:
        (warning,) = found
        assert warning.startswith(f"{path} can be read by {readers}")
        assert 'server.api_keys "key-1"' in warning
        assert "chmod 600" in warning
        assert KEY not in warning


@pytest.mark.parametrize(
    "text",
    [
        f'server = {{ api_keys = {{ {{ key = "{KEY}", name = "laptop" }} }} }}\n'
        + LOCAL % ("", ""),
        "server = {}\n" + LOCAL % (f'"--api-key", "{KEY}"', ""),
        "server = {}\n" + LOCAL % ("", f'env = {{ LLAMA_API_KEY = "{KEY}" }}'),
        "server = {}\n" + LOCAL % ("", f'env = {{ HF_TOKEN = "{KEY}" }}'),
        "server = {}\n"
        + MODELS % ("remote", f'api_key = "{KEY}", urls = {{ "https://h/v1" }},', "context = 8192"),
    ],
)
def test_keys_of_clients_and_of_engines_are_keys(tmp_path: Path, text: str) -> None:
    (warning,) = warnings_of(written(tmp_path, text, 0o644))
    assert KEY not in warning


@pytest.mark.parametrize(
    "server",
    ["", f'api_keys = {{ "{hash_of(KEY)}" }}', 'api_keys = { env("TEST_PLAIN_KEY") }'],
    ids=["none", "hashed", "from the environment"],  # a hash is another in each worker
)
def test_without_a_plain_key_anyone_may_read_it(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PLAIN_KEY", KEY)
    text = f"server = {{ {server} }}\n" + LOCAL % ("", 'env = { HF_TOKEN = env("TEST_PLAIN_KEY") }')
    assert warnings_of(written(tmp_path, text, 0o644)) == []


def test_an_included_file_is_looked_at_as_well(tmp_path: Path) -> None:
    keys = written(tmp_path, f'return {{ "{KEY}" }}', 0o644, "keys.lua")
    text = 'server = { api_keys = include("keys.lua") }\n' + LOCAL % ("", "")
    path = written(tmp_path, text, 0o644)
    (warning,) = warnings_of(path)
    assert warning.startswith(f"{keys} can be read")
    keys.chmod(0o600)
    assert warnings_of(path) == []


def test_a_key_of_tls_is_one_too(tmp_path: Path) -> None:
    key = written(tmp_path, "PEM", 0o644, "key.pem")
    tls = 'server = { tls = { certificate = "c.pem", key = "key.pem" } }\n'
    path = written(tmp_path, tls + LOCAL % ("", ""), 0o644)
    (warning,) = warnings_of(path)
    assert f"{key} can be read by every user" in warning


def test_what_a_service_reads_through_its_group_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, PLAIN, 0o640)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert warnings_of(path) == []
    path.chmod(0o644)
    assert len(warnings_of(path)) == 1


def test_check_and_each_start_say_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, PLAIN, 0o644)
    result = CliRunner().invoke(root, ["check", "-c", str(path)])
    assert result.exit_code == 0
    assert f"warning: {path} can be read by every user" in result.stdout
    create_app(ConfigLoader(path).load())
    (record,) = caplog.records
    assert (record.levelno, "can be read" in record.message) == (logging.WARNING, True)
