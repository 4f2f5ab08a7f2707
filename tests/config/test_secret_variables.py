"""Which variables of the environment are taken for keys, by what a file did with their values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import smallest

VALUES = {
    "LIST": "sk-key-a,sk-key-b",
    "ONE": "sk-key-of-one",
    "TWO": "sk-key-of-two",
    "HOST": "localhost",
    "SHORT": "ab",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ('server.api_keys = { env("ONE") }', {"ONE"}),
        ('server.api_keys = { { key = os.getenv("ONE") } }', {"ONE"}),
        ('server.api_keys = { os.getenv("ONE") or "x", env("TWO", "y") }', {"ONE", "TWO"}),
        ('server.api_keys = { env("SHORT") }', {"SHORT"}),
        ('server.api_keys = { "tg-" .. env("ONE") }', {"ONE"}),
        ('server.api_keys = { env("ONE"):sub(1, 9) }', {"ONE"}),
        ('server.api_keys = { (env("ONE") .. "," .. env("TWO")):match("[^,]+") }', {"ONE"}),
        ('server.api_keys = { env("LIST"):match("[^,]+$") }', {"LIST"}),
        ('model.api_key = env("ONE")', {"ONE"}),
        ('variant.api_key = env("ONE")', {"ONE"}),
        ('variant.args = { "--api-key", env("ONE") }', {"ONE"}),
        ('variant.args = { "--api-key=" .. env("ONE") }', {"ONE"}),
        ('variant.env = { LLAMA_API_KEY = env("ONE") }', {"ONE"}),
        (
            'server.traces = { endpoint = "http://h/v1", headers = { A = "Bearer "..env("TWO") } }',
            {"TWO"},
        ),
        # Not for keys.
        ('variant.env = { HOST = env("HOST"), OTHER = env("ONE") }', set()),
        ('variant.args = { "--api-key", "tg-ab-localhos" .. "t-", "-a", env("SHORT") }', set()),
        ('local unused = env("ONE")', set()),
        ('server.api_keys = { "sk-key-of-one" }', set()),
    ],
)  # fmt: skip
def test_what_was_read_for_a_key_is_known(tmp_path: Path, changes: str, expected: set[str]) -> None:
    assert smallest(tmp_path, changes).secret_variables == expected


def test_a_remote_s_key_is_one_as_well(tmp_path: Path) -> None:
    remote = """
      model.engine = presets.engines.remote
      model.urls, model.api_key = "https://gpu.example.com/v1", env("TWO")
      model.variants = { { context = 4096 } }
    """
    assert smallest(tmp_path, remote).secret_variables == {"TWO"}


def test_an_included_file_s_keys_are_known(tmp_path: Path) -> None:
    (tmp_path / "keys.lua").write_text('return { env("ONE") }')
    assert smallest(tmp_path, 'server.api_keys = include("keys.lua")').secret_variables == {"ONE"}


def test_a_variable_may_be_passed_on_or_kept_back(tmp_path: Path) -> None:
    config = smallest(tmp_path, 'variant.env = { ONE = true, TWO = false, A = "b" }')
    (variant,) = config.models[0].variants
    assert variant.env == {"A": "b"}
    assert variant.inherits == {"ONE": True, "TWO": False}


def test_a_key_among_the_arguments_is_worth_a_note(tmp_path: Path) -> None:
    (note,) = smallest(tmp_path, 'variant.args = { "--api-key", env("ONE") }').notes
    assert "all users of this machine can see a key" in note
    assert VALUES["ONE"] not in note
    assert smallest(tmp_path, 'model.api_key = env("ONE")').notes == ()
