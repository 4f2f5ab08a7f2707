"""Who counts a prompt, in which order, and what is remembered of it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.config.schema import ModelConfig, TokenizationConfig
from trio_gateway.models.counting.counter import Count, TokenCounter
from trio_gateway.models.counting.template_use import TemplateUse
from trio_gateway.models.counting.vocabulary import Vocabulary, VocabularyCount
from trio_gateway.models.need.calibration import PROBES, CountSource
from trio_gateway.models.need.counted_form import as_is

CHAT, COMPLETION = "chat/completions", "completions"
# One token for each word, as llama-tokenize prints them.
WORDS = "import sys; print([1] * len(sys.stdin.read().split()))"


@dataclass
class FakeVocabulary:
    """Answers as it is told to."""

    answer: VocabularyCount | None = None
    rendered: str | None = None
    asked: list[bytes | list[str]] = field(default_factory=list)
    refused: str | None = None

    def why_not(self, gguf: Path) -> str | None:
        return self.refused

    async def count_chat(self, gguf: Path, chat: bytes, use: TemplateUse) -> VocabularyCount | None:
        self.asked.append(chat)
        return self.answer

    async def count_prompts(self, gguf: Path, prompts: list[str]) -> VocabularyCount | None:
        self.asked.append(prompts)
        return self.answer

    async def render(self, gguf: Path, chat: bytes, use: TemplateUse) -> str | None:
        return self.rendered


@dataclass
class World:
    tmp_path: Path
    vocabulary: FakeVocabulary = field(default_factory=FakeVocabulary)
    engine_says: int | None = None
    runs: bool = False
    engine_was_asked: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.tmp_path / "m.gguf").write_bytes(b"GGUF")
        self.counter = TokenCounter(self, cast(Vocabulary, self.vocabulary), None)

    def engine_of(self, name: str) -> Any:
        async def count_tokens(endpoint: str, body: bytes, timeout_s: float) -> int | None:
            self.engine_was_asked.append(body)
            return self.engine_says

        client = SimpleNamespace(count_tokens=count_tokens)
        return SimpleNamespace(client=client) if self.runs else None

    def model(self, *args: str, **fields: Any) -> ModelConfig:
        gguf = ("-m", "m.gguf")
        binary = str(self.tmp_path / "llama-server")
        return model(
            "m", variant(args=(*gguf, *args), workdir=self.tmp_path, binary=binary), **fields
        )

    def has_tokenizer(self) -> None:
        script = self.tmp_path / "llama-tokenize"
        script.write_text(f"#!{sys.executable}\n{WORDS}\n")
        script.chmod(0o755)

    async def count(self, given: ModelConfig, endpoint: str = CHAT, **request: Any) -> Count | None:
        request = request or {"messages": [{"role": "user", "content": "a b"}]}
        form = as_is(endpoint, request, json.dumps(request).encode())
        return await self.counter.count(given, form)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_running_engine_is_asked_first(world: World) -> None:
    world.runs, world.engine_says = True, 7
    world.vocabulary.answer = VocabularyCount(8, exact=True)
    assert await world.count(world.model()) == Count(7, CountSource.ENGINE)
    assert world.vocabulary.asked == []


async def test_without_an_engine_the_vocabulary_counts_and_teaches_the_template(
    world: World,
) -> None:
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    assert await world.count(world.model()) == Count(30, CountSource.VOCABULARY)
    assert len(world.vocabulary.asked) == 1 + len(PROBES)
    assert world.counter.calibration(world.model()).is_learned


async def test_what_the_engine_teaches_takes_the_place_of_what_the_file_taught(
    world: World,
) -> None:
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    await world.count(world.model())
    assert not world.counter.calibration(world.model()).engine_has_taught
    world.runs, world.engine_says = True, 50
    await world.count(world.model(), COMPLETION, prompt="another")
    assert world.counter.calibration(world.model()).engine_has_taught
    assert world.counter.calibration(world.model()).overhead.base == 50 + 8


async def test_tools_that_the_engine_ignores_are_not_counted_any_more(world: World) -> None:
    world.runs, world.engine_says = True, 30  # the same with tools and without
    await world.count(world.model())
    world.runs = False
    world.vocabulary.answer = VocabularyCount(40, exact=True)
    messages = [{"role": "user", "content": "a"}]
    await world.count(world.model(), messages=messages, tools=[{"type": "function"}])
    assert b"tools" not in world.vocabulary.asked[-1]


@pytest.mark.processes
async def test_where_the_vocabulary_declines_the_tokenizer_counts_what_it_renders(
    world: World,
) -> None:
    world.has_tokenizer()
    world.vocabulary.rendered = "<user> one two three"
    assert await world.count(world.model()) == Count(4, CountSource.TOKENIZER)


async def test_where_neither_can_render_nobody_can_say(world: World) -> None:
    world.has_tokenizer()
    assert await world.count(world.model()) is None


@pytest.mark.processes
async def test_a_prompt_without_a_template_needs_no_rendering(world: World) -> None:
    world.has_tokenizer()
    found = await world.count(world.model(), COMPLETION, prompt=["one two", "one two three"])
    assert found == Count(3, CountSource.TOKENIZER)
    assert await world.count(world.model(), COMPLETION, prompt=[1, "two"]) is None


async def test_a_count_that_may_be_too_high_is_raised_by_what_answers_showed(world: World) -> None:
    world.vocabulary.answer = VocabularyCount(100, exact=False)
    first = await world.count(world.model())
    assert first == Count(100, CountSource.VOCABULARY, is_exact=False)
    world.counter.calibration(world.model()).note_answer(100, CountSource.VOCABULARY, 130)
    second = await world.count(world.model())  # and it was not remembered as exact
    assert second == Count(130, CountSource.VOCABULARY, is_exact=False, correction=30)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--chat-template", "llama3"), ("--override-kv", "a=int:1"), ("--no-jinja", "")],
)
async def test_an_engine_whose_template_is_not_known_is_left_to_the_bound(
    world: World, option: str, value: str
) -> None:
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    found = await world.count(world.model(option, value))
    assert found is not None
    assert (found.source, found.is_exact) == (CountSource.BOUND, False)
    assert (
        found.why == "by file alone: its options choose a chat template that only its engine knows"
    )
    assert await world.count(world.model(option, value), COMPLETION, prompt="a") is not None


async def test_tools_that_an_engine_refuses_are_not_counted(world: World) -> None:
    """So that no larger variant is loaded for a chat which is refused there."""
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 10_000}}
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "a b"}], "tools": [tool]}
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    refusing = world.model("--no-jinja")
    found = await world.count(refusing, **chat)
    assert found is not None
    assert found.source is CountSource.BOUND
    assert found.tokens < 1000
    world.runs, world.engine_says = True, 7
    assert await world.count(refusing, **chat) == Count(7, CountSource.ENGINE)
    assert b"tools" not in world.engine_was_asked[0]


async def test_what_answers_have_shown_to_be_too_few_is_exact_no_more(world: World) -> None:
    world.vocabulary.answer = VocabularyCount(100, exact=True)
    world.counter.calibration(world.model()).note_answer(100, CountSource.VOCABULARY, 130)
    found = await world.count(world.model())
    assert found == Count(130, CountSource.VOCABULARY, is_exact=False, correction=30)


async def test_why_the_vocabulary_declined_is_said_with_the_bound(world: World) -> None:
    world.vocabulary.refused = "its chat template is broken"
    found = await world.count(world.model())
    assert found is not None
    assert found.source is CountSource.BOUND
    assert found.why == "by file alone: its chat template is broken"


async def test_a_model_whose_file_is_not_here_is_left_to_the_bound(world: World) -> None:
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    (world.tmp_path / "m.gguf").unlink()
    assert await world.count(world.model()) is None


@pytest.mark.processes
async def test_the_configured_command_counts_the_rendered_chat(world: World) -> None:
    world.vocabulary.rendered = "one two three"
    config = TokenizationConfig(binary=sys.executable, base_args=("-c", WORDS))
    found = await world.count(world.model(tokenization=config))
    assert found == Count(3, CountSource.COMMAND)


@pytest.mark.processes
async def test_the_configured_command_with_extras_counts_as_it_was_told_to(world: World) -> None:
    world.vocabulary.rendered = "one two three"
    config = TokenizationConfig(binary=sys.executable, base_args=("-c", WORDS), extra_tokens=50)
    found = await world.count(world.model(tokenization=config))
    # "user", "a" and "b"; perhaps not the whole truth.
    assert found == Count(53, CountSource.COMMAND, is_exact=False)


async def test_no_text_is_kept_of_what_was_counted(world: World) -> None:
    world.vocabulary.answer = VocabularyCount(30, exact=True)
    secret = "a very secret prompt"
    await world.count(world.model(), COMPLETION, prompt=secret)
    assert secret not in repr(vars(world.counter)["_known"])
    asked = len(world.vocabulary.asked)
    await world.count(world.model(), COMPLETION, prompt=secret)
    assert len(world.vocabulary.asked) == asked
