"""Counting with a command: a real process, which works, fails, or is not there."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.config.schema import TokenizationConfig
from trio_gateway.models.counting import tokenizer
from trio_gateway.models.counting.tokenizer import Tokenizer
from trio_gateway.models.need.bounds import Overhead
from trio_gateway.models.need.contents import RequestFields

pytestmark = pytest.mark.processes

OVERHEAD = Overhead(base=50, per_message=5, first_tool=30, per_tool=3)

# One token for each word, in llama-tokenize's manner.
WORDS = "import sys; print(list(range(len(sys.stdin.read().split()))))"


async def count(config: TokenizationConfig, fields: RequestFields) -> int | None:
    return await Tokenizer(config).count_request(fields, OVERHEAD)


@pytest.fixture
def command(tmp_path: Path) -> Any:
    def make(script: str, **extras: Any) -> TokenizationConfig:
        file = tmp_path / "tokenize.py"
        file.write_text(script)
        return TokenizationConfig(binary=sys.executable, base_args=(str(file),), **extras)

    return make


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("one two three", 3),
        ("", 0),
        (["one", "one two three", "one two"], 3),
        ([5, 6, 7, 8], 4),
        ([[5, 6], [5, 6, 7]], 3),
        ([5, "one two three", 6], 5),
        ([], 0),
    ],
    ids=str,
)
async def test_prompts_of_every_shape_are_counted(command: Any, prompt: Any, tokens: int) -> None:
    assert await count(command(WORDS), RequestFields(prompt=prompt)) == tokens
    assert await count(command(WORDS), RequestFields(input=prompt)) == tokens


async def test_a_chat_is_its_texts_and_the_configured_extras(command: Any) -> None:
    config = command(WORDS, extra_tokens_per_message=10, extra_tokens=100)
    messages = [{"role": "system", "content": "be nice"}, {"role": "user", "content": "hello"}]
    fields = RequestFields(messages=messages)
    assert await count(config, fields) == 5 + 2 * 10 + 100


async def test_a_chat_without_configured_extras_gets_the_templates_overhead(command: Any) -> None:
    message = {"role": "user", "content": "hello"}
    fields = RequestFields(messages=[message, message])
    assert await count(command(WORDS), fields) == 4 + 50 + 2 * 5
    with_tools = RequestFields(messages=[message], tools=[{}, {}])
    assert await count(command(WORDS), with_tools) == 3 + 50 + 5 + 30 + 3


async def test_arguments_come_in_the_configured_order(command: Any) -> None:
    config = command("import sys; print(sys.argv[1:] == ['-m', 'x'] and [1])")
    config = TokenizationConfig(
        binary=config.binary, base_args=config.base_args, extra_args=("-m", "x")
    )
    assert await count(config, RequestFields(prompt="text")) == 1


@pytest.mark.parametrize(
    "script",
    [
        "raise SystemExit(3)",
        "import sys; sys.stdin.read(); print('[1, 2]'); raise SystemExit(3)",
        "print('no vocabulary here')",
        "print('[1, two]')",
        "",
    ],
    ids=["fails", "fails after printing", "garbage", "half garbage", "says nothing"],
)
async def test_a_command_that_does_not_count_is_logged_with_what_to_try(
    command: Any, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    fields = RequestFields(messages=[{"role": "user", "content": "x" * 100_000}])
    assert await count(command(script), fields) is None
    assert "printed no token ids" in caplog.text
    assert "Try it by hand" in caplog.text


@pytest.mark.parametrize("prompt", [["one", "two"], [1, "two"]], ids=["batch", "mixed"])
async def test_one_prompt_that_cannot_be_counted_spoils_the_count(
    command: Any, prompt: Any
) -> None:
    assert await count(command("print('?')"), RequestFields(prompt=prompt)) is None


async def test_a_missing_command_is_logged_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TokenizationConfig(binary=str(tmp_path / "missing"))
    assert await count(config, RequestFields(prompt="text")) is None
    assert "missing" in caplog.text
    assert "estimated instead" in caplog.text


async def test_a_command_that_hangs_is_ended(
    command: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokenizer, "TIMEOUT_S", 0.2)
    with caplog.at_level(logging.ERROR):
        config = command("import time; time.sleep(60)")
        assert await count(config, RequestFields(prompt="text")) is None
    assert "too slow" in caplog.text
