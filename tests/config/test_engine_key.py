"""Where an engine's key is: every spelling that a configuration may have it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_gateway.config.engine_key import (
    EngineKey,
    KeyPlace,
    configured_key,
    inherited_key,
    is_sendable,
    key_file,
    key_of_file,
)
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, Secret, VariantConfig

LLAMA = ("LLAMA_API_KEY",)


def variant(*args: str, api_key: str = "", **env: str) -> VariantConfig:
    given: dict[str, Any] = {"options": EngineOptions(api_key=Secret(api_key))} if api_key else {}
    return VariantConfig(
        name="v", binary="b", args=args, context=1, connect=None, env=env, workdir=Path(),
        parallel=None, memory_bytes=None, timeouts=EngineTimeouts(), **given,
    )  # fmt: skip


def shown(key: EngineKey | None) -> tuple[KeyPlace, str] | None:
    return (key.place, key.secret.reveal() if key.secret else "") if key is not None else None


@pytest.mark.parametrize(
    "args",
    [
        ["--api-key", "k"],
        ["--api-key=k"],
        ["--api_key", "k"],
        ["--api-key", "old", "--api-key", "k"],
        ["--api-key", "k,another"],
        ["--api-key", " k , another"],
    ],
    ids=" ".join,
)
def test_a_key_among_the_arguments_is_found(args: list[str]) -> None:
    assert shown(configured_key(variant("-c", "1", *args), LLAMA)) == (KeyPlace.ARGS, "k")


@pytest.mark.parametrize(
    "args",
    [
        ["run", "-e", "LLAMA_API_KEY=k", "image"],
        ["run", "-eLLAMA_API_KEY=k", "image"],
        ["run", "--env", "LLAMA_API_KEY=k", "image"],
        ["run", "--env=LLAMA_API_KEY=k", "image"],
        ["LLAMA_API_KEY=k", "llama-server"],
    ],
    ids=" ".join,
)
def test_a_variable_that_the_arguments_set_is_found(args: list[str]) -> None:
    assert shown(configured_key(variant(*args), LLAMA)) == (KeyPlace.ENV_IN_ARGS, "k")


def test_a_variable_of_the_variant_is_found_and_another_is_not_taken_for_it() -> None:
    found = configured_key(variant(LLAMA_API_KEY="k"), LLAMA)
    assert shown(found) == (KeyPlace.ENV, "k")
    assert str(found) == "LLAMA_API_KEY in its `env`"
    assert configured_key(variant(LLAMA_API_KEY=""), LLAMA) is None
    assert configured_key(variant(OPENAI_API_KEY="k"), LLAMA) is None
    assert configured_key(variant("-e", "OPENAI_API_KEY=k"), LLAMA) is None
    script = "LLAMA_API_KEY=k exec llama-server --port 1"
    assert configured_key(variant("-c", script), LLAMA) is None


def test_what_api_key_says_comes_first_and_then_the_arguments() -> None:
    everything = variant("--api-key", "b", "--api-key-file", "f", api_key="a", LLAMA_API_KEY="c")
    assert shown(configured_key(everything, LLAMA)) == (KeyPlace.CONFIGURED, "a")
    rest = variant("--api-key", "b", LLAMA_API_KEY="c")
    assert shown(configured_key(rest, LLAMA)) == (KeyPlace.ARGS, "b")


@pytest.mark.parametrize("args", [["--api-key-file", "f"], ["--api-key-file=f"]], ids=" ".join)
def test_a_file_with_keys_is_found_and_its_first_key_is_the_one(args: list[str]) -> None:
    assert key_file(variant(*args)) == "f"
    assert configured_key(variant(*args, LLAMA_API_KEY="c"), LLAMA) is None
    assert shown(key_of_file("\n  \nk\r\nanother\n")) == (KeyPlace.FILE, "k")
    assert key_of_file(" \n") is None


def test_what_is_inherited_is_found() -> None:
    variables = ("VLLM_API_KEY", "LLAMA_API_KEY")
    found = inherited_key({"LLAMA_API_KEY": "k"}, variables)
    assert shown(found) == (KeyPlace.INHERITED, "k")
    assert str(found) == "LLAMA_API_KEY in the gateway's environment"
    assert inherited_key({"LLAMA_API_KEY": ""}, variables) is None


@pytest.mark.parametrize(
    ("key", "sendable"), [("a-b_c.~", True), ("a b", True), ("ä", True), ("a\n", False)]
)
def test_not_every_text_fits_into_a_header(key: str, sendable: bool) -> None:
    assert is_sendable(key) is sendable
    assert not is_sendable(f"{key}\r\nX-Header: 1")


@pytest.mark.parametrize(
    ("key", "status", "expected"),
    [
        (
            EngineKey(KeyPlace.NONE),
            401,
            "the engine m:1 asks for a key (HTTP 401); set `api_key` of the model or its variant",
        ),
        (
            EngineKey(KeyPlace.CONFIGURED, Secret("k")),
            401,
            "the engine m:1 asks for a key (HTTP 401); it does not take the gateway's; check "
            "`api_key` of the model or its variant",
        ),
        (
            EngineKey(KeyPlace.ENV, Secret("k"), "LLAMA_API_KEY"),
            401,
            "the engine m:1 asks for a key (HTTP 401); it does not take the gateway's, from "
            "LLAMA_API_KEY in its `env`; check that, or set `api_key`",
        ),
        (
            EngineKey(KeyPlace.NONE),
            403,
            "the engine m:1 forbids the request (HTTP 403); if that is for its key: set `api_key` "
            "of the model or its variant. It says: sorry",
        ),
    ],
    ids=["none", "configured", "of a variable", "forbidden"],
)
def test_a_refusal_says_where_the_key_is(key: EngineKey, status: int, expected: str) -> None:
    assert key.refusal("the engine m:1", status, "sorry") == expected


def test_a_refusal_does_not_tell_the_key() -> None:
    key = EngineKey(KeyPlace.CONFIGURED, Secret("sk-secret-key-1234"))
    said = "Incorrect key: sk-secret-key-1234, or sk-se******1234."
    words = key.refusal("e", 403, said)
    assert words.endswith("It says: Incorrect key: …, or …")
    assert "secret-key" not in key.refusal("e", 401, said) + repr(key)
