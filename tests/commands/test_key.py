"""`trio-gateway key`: what it prints works in a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.configurations import smallest
from trio_gateway.commands.root import root
from trio_gateway.config.key_hash import parse_hash


def run(*args: str, given: str | None = None) -> Result:
    return CliRunner().invoke(root, ["key", *args], input=given)


def line_of(result: Result) -> str:
    return next(line for line in result.stdout.splitlines() if "scrypt:" in line)


def test_the_line_is_for_the_key_and_loads(tmp_path: Path) -> None:
    result = run("--name", 'Ann\'s "laptop"', "--admin", "--forwards")
    assert result.exit_code == 0, result.output
    found = re.search(r"^  (tg-\S+)$", result.stdout, re.MULTILINE)
    assert found is not None
    (key,) = smallest(tmp_path, f"server.api_keys = {{ {line_of(result)} }}").server.access.api_keys
    assert (key.name, key.admin, key.forwards) == ('Ann\'s "laptop"', True, True)
    assert parse_hash(key.secret).matches(found[1])
    assert found[1] not in line_of(result)


def test_two_keys_are_two() -> None:
    assert run().stdout != run().stdout


def test_an_existing_key_is_read_from_standard_input_and_not_shown(tmp_path: Path) -> None:
    result = run("--hash", given="sk-my-own-key-0123456789\n")
    assert result.exit_code == 0
    assert "sk-my-own" not in result.output
    (key,) = smallest(tmp_path, f"server.api_keys = {{ {line_of(result)} }}").server.access.api_keys
    assert parse_hash(key.secret).matches("sk-my-own-key-0123456789")
    assert (key.admin, key.forwards) == (False, False)


@pytest.mark.parametrize("given", ["", "\n", "two words\n", "ключ\n", "x" * 300, "scrypt:1:2\n"])
def test_what_cannot_be_a_key_is_refused(given: str) -> None:
    result = run("--hash", given=given)
    assert result.exit_code == 2
    assert "scrypt:16384" not in result.output


def test_a_short_key_gets_a_note() -> None:
    result = run("--hash", given="short\n")
    assert result.exit_code == 0
    assert "can be guessed" in result.stderr


@pytest.mark.parametrize("name", ["", " a", "a\nb"])
def test_a_name_is_one_line(name: str) -> None:
    assert run("--name", name).exit_code == 2


def test_the_help_names_what_an_admin_may_use_and_what_hash_does() -> None:
    text = " ".join(run("--help").output.split())
    assert "The key may also use /gateway/, /upstream/ and /slots." in text
    assert "Hash an existing key read from standard input." in text
