"""What one request may cost those that count, and that the others' counts stay exact beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from tests.support.asking import Clock
from tests.support.schema_values import model, variant
from trio_gateway.config.schema import TokenizationConfig
from trio_gateway.engine.clients.prompts import count_largest, field
from trio_gateway.models.counting import counter as counter_module
from trio_gateway.models.counting import tokenizer as tokenizer_module
from trio_gateway.models.counting import vocabulary as vocabulary_module
from trio_gateway.models.counting.counter import BUDGET_S, Count, TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary, VocabularyCount
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.need.countable import COUNTED_MAX_BYTES, COUNTED_MAX_TEXTS
from trio_gateway.models.need.counted_form import CountedForm, as_is, rerank_as_input

ORDINARY = {"messages": [{"role": "user", "content": "one two three"}]}
TEXT = "word " * 400  # 2 kB


def prompts(number: int) -> dict[str, Any]:
    return {"prompt": [f"{n:08d} {TEXT}" for n in range(number)]}


def form(kind: str, request: dict[str, Any]) -> CountedForm:
    return as_is(kind, request, json.dumps(request).encode())


class Engine:
    """One text at a time, a token for each word, 10 ms for each."""

    def __init__(self, text_s: float = 0.01) -> None:
        self.texts: list[str] = []
        self.client = self
        self._text_s, self._busy = text_s, trio.CapacityLimiter(1)

    def engine_of(self, model: str, /) -> Engine:
        return self

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        if endpoint == "chat/completions":
            return await self._count(json.loads(body)["messages"][0]["content"])
        key = "input" if endpoint == "embeddings" else "prompt"
        return await count_largest(field(body, key), self._count)

    async def _count(self, text: str) -> int:
        async with self._busy:
            await trio.sleep(self._text_s)
        self.texts.append(text)
        return len(text.split())


def counter(engine: Engine) -> TokenCounter:
    return TokenCounter(engine, Vocabulary(), None)


async def test_of_a_large_batch_a_few_are_counted_and_the_rest_is_bounded(
    autojump_clock: Clock,
) -> None:
    engine = Engine()
    batch = prompts(5_000)
    found = await counter(engine).count(model("m"), form("completions", batch))
    assert found == Count(
        len(batch["prompt"][0]) + 16, CountSource.BOUND, False,
        why="the batch has 4936 prompts more than are counted",
    )  # fmt: skip
    assert len([text for text in engine.texts if TEXT in text]) == COUNTED_MAX_TEXTS


@pytest.mark.parametrize("kind", ["completions", "embeddings"])
async def test_the_count_of_a_batch_is_exact_where_the_longest_says_it(
    autojump_clock: Clock, kind: str
) -> None:
    engine = Engine()
    key = "input" if kind == "embeddings" else "prompt"
    batch = {key: [*["a short one"] * 5_000, "word " * 1_000]}
    found = await counter(engine).count(model("m"), form(kind, batch))
    assert found == Count(1_000, CountSource.ENGINE)
    assert engine.texts[0] == "word " * 1_000
    assert "a short one" not in engine.texts


async def test_so_are_documents_with_their_query(autojump_clock: Clock) -> None:
    engine = Engine()
    asked = rerank_as_input({"query": "a query", "documents": ["short"] * 5_000 + [TEXT]})
    assert await counter(engine).count(model("m"), asked) == Count(402, CountSource.ENGINE)
    assert engine.texts[0] == f"a query\n{TEXT}"


async def test_a_million_prompts_cost_no_more_than_a_few(autojump_clock: Clock) -> None:
    engine = Engine()
    batch = {"prompt": ["a b c d e f g h i j k l m n o p q r s t u v"] * 400_000}
    found = await counter(engine).count(model("m"), form("completions", batch))
    assert found is not None
    assert not found.is_exact
    assert trio.current_time() < 2
    assert len(engine.texts) < COUNTED_MAX_TEXTS + 10


@pytest.mark.parametrize(
    "request_",
    [
        {"prompt": ["x " * COUNTED_MAX_BYTES]},
        {"prompt": "x " * COUNTED_MAX_BYTES},
        {"prompt": [part for n in range(5_000) for part in (n, "x")]},
        {"prompt": [[part for n in range(5_000) for part in (n, "x")]]},
    ],
    ids=["batch of one", "text", "ids and texts", "batch of one with ids"],
)
async def test_what_is_too_much_in_one_piece_is_not_asked_for(
    autojump_clock: Clock, request_: dict[str, Any]
) -> None:
    engine = Engine()
    found = await counter(engine).count(model("m"), form("completions", request_))
    assert found is not None
    assert found.source is CountSource.BOUND
    assert found.why == "the prompt is too long to be counted"
    assert engine.texts == []


async def test_a_count_that_takes_too_long_gives_way_to_the_bound(autojump_clock: Clock) -> None:
    engine = Engine(text_s=1.0)
    batch = prompts(COUNTED_MAX_TEXTS)
    found = await counter(engine).count(model("m"), form("completions", batch))
    assert found is not None
    assert (found.source, found.is_exact) == (CountSource.BOUND, False)
    assert found.why == f"counting it took more than {BUDGET_S:g} s"
    assert trio.current_time() == BUDGET_S


async def test_three_large_batches_leave_an_ordinary_count_exact(autojump_clock: Clock) -> None:
    engine = Engine()
    subject = counter(engine)
    async with trio.open_nursery() as nursery:
        for number in (5_000, 5_001, 5_002):
            asked = form("completions", prompts(number))
            nursery.start_soon(subject.count, model("m"), asked)
        await trio.sleep(0.1)
        begun = trio.current_time()
        found = await subject.count(model("m"), form("chat/completions", ORDINARY))
        assert found == Count(3, CountSource.ENGINE)
        assert trio.current_time() - begun < 0.5


async def test_so_they_do_where_a_command_counts(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    running = 0
    texts: list[bytes] = []

    async def run_tool(command: Any, text: bytes, *_: Any) -> tuple[int, bytes]:
        nonlocal running
        running += 1
        assert running <= counter_module.TOKENIZERS_MAX
        await trio.sleep(0.1)
        running -= 1
        texts.append(text)
        return 0, b",".join([b"1"] * len(text.split()))

    monkeypatch.setattr(tokenizer_module, "run_tool", run_tool)
    config = TokenizationConfig(binary="a", extra_tokens=1)
    subject = TokenCounter(SimpleNamespace(engine_of=lambda _: None), Vocabulary(), None)
    given = model("m", tokenization=config)
    async with trio.open_nursery() as nursery:
        for number in (5_000, 5_001, 5_002):
            asked = form("completions", prompts(number))
            nursery.start_soon(subject.count, given, asked)
        await trio.sleep(0.25)
        begun = trio.current_time()
        found = await subject.count(given, form("completions", {"prompt": "one two three"}))
        assert found == Count(4, CountSource.COMMAND)
        assert trio.current_time() - begun < 0.5
    assert len(texts) <= 3 * COUNTED_MAX_TEXTS + 1


@pytest.mark.slow
async def test_and_where_the_vocabulary_does(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock, tmp_path: Path
) -> None:
    """The texts of a batch are several questions, and others are asked between them."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    given = model("m", variant(args=("-m", "m.gguf"), workdir=tmp_path))
    vocabulary = Vocabulary()
    busy = trio.CapacityLimiter(1)  # as the helper is

    async def ask(gguf: Path, **asked: Any) -> Any:
        size = len(str(asked))
        async with busy:
            await trio.sleep(size / 1_000_000)
        if "chat" in asked:
            return VocabularyCount(3, exact=True)
        return VocabularyCount(max(len(text.split()) for text in asked["prompts"]), exact=True)

    monkeypatch.setattr(vocabulary, "_ask", ask)
    subject = TokenCounter(SimpleNamespace(engine_of=lambda _: None), vocabulary, None)
    long = "word " * 6_000
    async with trio.open_nursery() as nursery:
        for start in range(3):
            batch = {"prompt": [f"{start} {n} {long}" for n in range(1_000)]}
            nursery.start_soon(subject.count, given, form("completions", batch))
        await trio.sleep(0.2)
        begun = trio.current_time()
        found = await subject.count(given, form("chat/completions", ORDINARY))
        assert found == Count(3, CountSource.VOCABULARY)
        assert trio.current_time() - begun < 3  # five of its turns are to learn the template


async def test_a_short_question_waits_for_one_long_one_at_most(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock, tmp_path: Path
) -> None:
    """And a long one that had to wait has time left to be answered: the helper is not ended."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    given = model("m", variant(args=("-m", "m.gguf"), workdir=tmp_path))
    answered: list[int] = []

    async def exchange(process: Any, question: Any) -> Any:
        await trio.sleep(len(question.line) / 500_000)
        answered.append(len(question.line))
        return msgspec.convert({"tokens": 3, "exact": True}, vocabulary_module._Answer)

    async def helper(self: Any) -> None:
        return None

    monkeypatch.setattr(vocabulary_module, "_watched_exchange", exchange)
    monkeypatch.setattr(vocabulary_module, "_held_bytes", lambda process: 0)
    monkeypatch.setattr(vocabulary_module._Owner, "_helper", helper)
    vocabulary = Vocabulary()
    subject = TokenCounter(SimpleNamespace(engine_of=lambda _: None), vocabulary, None)
    async with trio.open_nursery() as nursery:
        await nursery.start(vocabulary.run)
        for start in range(5):
            long = {"messages": [{"role": "user", "content": f"{start} " + "word " * 380_000}]}
            nursery.start_soon(subject.count, given, form("chat/completions", long))
        await trio.sleep(0.2)
        begun = trio.current_time()
        found = await subject.count(given, form("chat/completions", ORDINARY))
        assert found == Count(3, CountSource.VOCABULARY)
        # Once for its own text, and once for all of what its template is learned from.
        assert trio.current_time() - begun < 8
        await trio.sleep(30)
        assert len([size for size in answered if size > 1_000_000]) >= 3
        nursery.cancel_scope.cancel(reason="the test is over")
