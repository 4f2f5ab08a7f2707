"""From a request to its need and to the smallest variant that holds it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    ModelConfig,
    ServerConfig,
    TokenizationConfig,
    VariantConfig,
)
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.overview import Overview
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.model_selector import ContextLengthExceeded, ModelSelector
from trio_gateway.models.need.calibration import PROBES, CountSource
from trio_gateway.models.need.counted_form import as_is
from trio_gateway.models.selection import Selection

CHAT, COMPLETION, EMBEDDINGS = "chat/completions", "completions", "embeddings"
DEFAULT_ANSWER = 512


def a_variant(context: int) -> VariantConfig:
    return VariantConfig(
        name=f"{context}",
        binary="llama-server",
        args=(),
        context=context,
        connect=None,
        env={},
        workdir=Path("/"),
        parallel=None,
        memory_bytes=None,
        timeouts=EngineTimeouts(),
    )


def a_model(name: str = "m", *contexts: int, **fields: Any) -> ModelConfig:
    return ModelConfig(
        **{
            "name": name,
            "aliases": (),
            "engine": LLAMACPP,
            "pool": "primary",
            "variants": tuple(a_variant(context) for context in contexts or (2048, 8192, 32768)),
            **fields,
        }
    )


@dataclass
class CountingClient:
    """An engine's client that only counts: `answer` tokens, or None for "cannot say"."""

    answer: int | None
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        assert timeout_s > 0
        self.asked.append((endpoint, body))
        return self.answer


@dataclass
class Engines:
    """The two questions that a selector asks."""

    running: dict[str, Any] = field(default_factory=dict)
    contexts: dict[str, list[int]] = field(default_factory=dict)

    def runs(self, model: ModelConfig, context: int, count: int | None) -> CountingClient:
        client = CountingClient(count)
        self.running[model.name] = SimpleNamespace(
            client=client, info=SimpleNamespace(context=context), variant=a_variant(context)
        )
        return client

    def contexts_of(self, model: str) -> list[int]:
        return self.contexts[model]

    def engine_of(self, model: str) -> Any:
        return self.running.get(model)


def selector(
    *models: ModelConfig,
    engines: Engines | None = None,
    default_answer_tokens: int | None = DEFAULT_ANSWER,
) -> ModelSelector:
    engines = engines or Engines()
    for model in models:
        engines.contexts.setdefault(model.name, [v.context for v in model.variants])
    config = GatewayConfig(
        source=Path("gateway.lua"),
        server=ServerConfig(default_answer_tokens=default_answer_tokens),
        models=models,
        pools={"primary": PoolConfig("primary")},
    )
    overview = cast(Overview, engines)
    return ModelSelector(config, overview, TokenCounter(overview, Vocabulary(), None))


async def select(
    subject: ModelSelector, model: ModelConfig, endpoint: str = CHAT, **request: Any
) -> Selection:
    body = msgspec.json.encode(request)
    return await subject.select_variant(model, as_is(endpoint, request, body))


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# -- which variant --------------------------------------------------------------------------


async def test_a_short_request_gets_the_smallest_variant_without_any_count() -> None:
    model, engines = a_model(), Engines()
    client = engines.runs(model, 2048, count=7)
    selection = await select(selector(model, engines=engines), model, messages=says("hello"))
    assert selection.context == 2048
    assert selection.need <= 2048
    assert client.asked == []


async def test_the_answer_that_is_asked_for_counts() -> None:
    model = a_model()
    selection = await select(selector(model), model, messages=says("hello"), max_tokens=5000)
    assert selection.context == 8192


async def test_without_a_maximum_the_answer_gets_no_more_than_the_largest_variant_leaves() -> None:
    model = a_model("m", 256, 512)
    selection = await select(selector(model), model, COMPLETION, prompt="hello")
    assert (selection.need, selection.context) == (512, 512)


async def test_embeddings_need_no_room_for_an_answer() -> None:
    model = a_model()
    selection = await select(selector(model), model, EMBEDDINGS, input="a" * 2000, max_tokens=9)
    assert selection.context == 2048


async def test_token_ids_need_no_count() -> None:
    model, engines = a_model(), Engines()
    client = engines.runs(model, 2048, count=7)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, COMPLETION, prompt=[1] * 3000, max_tokens=10)
    assert (selection.context, client.asked) == (8192, [])


async def test_where_the_bounds_disagree_the_running_engine_counts() -> None:
    model, engines = a_model(), Engines()
    client = engines.runs(model, 2048, count=1000)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=says("a" * 4000), max_tokens=10)
    assert (selection.need, selection.context) == (1000 + 10 + 16, 2048)
    (endpoint, body), *probes = client.asked
    assert endpoint == CHAT
    assert msgspec.json.decode(body)["messages"] == says("a" * 4000)
    assert len(probes) == len(PROBES)  # the first count teaches the template, too


async def test_a_running_engine_that_holds_the_upper_bound_serves_without_a_count() -> None:
    model, engines = a_model(), Engines()
    client = engines.runs(model, 8192, count=1000)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=says("a" * 4000), max_tokens=10)
    assert (selection.context, client.asked) == (8192, [])


async def test_an_image_is_counted_apart_from_its_text_and_its_base64_never() -> None:
    model, engines = a_model(image_tokens=300), Engines()
    client = engines.runs(model, 2048, count=900)
    parts = [
        {"type": "text", "text": "a" * 2500},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}},
    ]
    subject = selector(model, engines=engines)
    message = {"role": "user", "content": parts}
    selection = await select(subject, model, messages=[message], max_tokens=10)
    assert (selection.prompt, selection.context) == (1200, 2048)
    assert b"AAAA" not in client.asked[0][1]
    assert b"a" * 2500 in client.asked[0][1]


async def test_a_count_that_may_be_too_high_refuses_nothing() -> None:
    """Eight images of at most 1,024 tokens may well fit: the engine has the last word."""
    model, engines = a_model("m", 4096), Engines()
    engines.runs(model, 4096, count=100)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    message = {"role": "user", "content": [image] * 8}
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=[message], max_tokens=10)
    assert (selection.context, selection.need) == (4096, 4096)


async def test_the_same_text_is_counted_once_whatever_else_the_request_says() -> None:
    model, engines = a_model(), Engines()
    client = engines.runs(model, 2048, count=1000)
    subject = selector(model, engines=engines)
    for temperature in (0, 1):
        await select(
            subject, model, messages=says("a" * 4000), max_tokens=9, temperature=temperature
        )
    assert len(client.asked) == 1 + len(PROBES)
    await select(subject, model, messages=says("b" * 4000), max_tokens=9)
    assert len(client.asked) == 2 + len(PROBES)


async def test_a_variants_real_context_decides_and_not_the_declared_one() -> None:
    model, engines = a_model(), Engines(contexts={"m": [1024, 8192, 32768]})
    subject = selector(model, engines=engines)
    selection = await select(subject, model, COMPLETION, prompt=[1] * 1500, max_tokens=1)
    assert selection.context == 8192


# -- who counts -----------------------------------------------------------------------------

WORDS = "import sys; print([1] * len(sys.stdin.read().split()))"


def tokenized(script: str) -> ModelConfig:
    return a_model(tokenization=TokenizationConfig(binary=sys.executable, base_args=("-c", script)))


@pytest.mark.processes
async def test_without_an_engine_the_command_counts() -> None:
    model = tokenized(WORDS)
    selection = await select(
        selector(model), model, COMPLETION, prompt="word " * 1000, max_tokens=10
    )
    assert (selection.need, selection.context) == (1026, 2048)


@pytest.mark.processes
async def test_an_engine_that_cannot_say_leaves_it_to_the_command() -> None:
    model, engines = tokenized(WORDS), Engines()
    client = engines.runs(model, 2048, count=None)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, COMPLETION, prompt="word " * 1000, max_tokens=10)
    assert (selection.need, len(client.asked)) == (1026, 1)


@pytest.mark.processes
async def test_when_nothing_can_count_the_bound_decides() -> None:
    for model in (a_model(), tokenized("raise SystemExit(1)")):
        subject = selector(model)
        selection = await select(subject, model, COMPLETION, prompt="word " * 1000, max_tokens=10)
        assert (selection.need, selection.context) == (5000 + 16 + 10 + 16, 8192)


async def test_what_may_not_fit_goes_to_the_largest_variant_when_nothing_can_count() -> None:
    model = a_model()
    selection = await select(selector(model), model, messages=says("a" * 100_000), max_tokens=10)
    assert (selection.need, selection.context) == (32768, 32768)


# -- too long -------------------------------------------------------------------------------


async def test_a_prompt_that_no_variant_holds_is_refused_with_both_numbers() -> None:
    model, engines = a_model(), Engines()
    engines.runs(model, 2048, count=40_000)
    subject = selector(model, engines=engines)
    with pytest.raises(ContextLengthExceeded) as refused:
        await select(subject, model, messages=says("a" * 100_000), max_tokens=100)
    assert (
        "40116 tokens (40000 for the prompt, 100 for the answer (max_tokens) and 16 of margin)"
        in str(refused.value)
    )
    assert "32768" in str(refused.value)


async def test_what_cannot_be_cut_from_a_prompt_is_not_asked_for() -> None:
    model = a_model("m", 2048)
    engines = Engines()
    engines.runs(model, 2048, count=31)
    with pytest.raises(ContextLengthExceeded) as refused:
        await select(
            selector(model, engines=engines), model, messages=says("x" * 300), max_tokens=80_000
        )
    assert "80047 tokens (31 for the prompt, 80000 for the answer" in str(refused.value)
    assert str(refused.value).endswith("(m); lower max_tokens to 2001")


async def test_the_need_that_is_named_is_larger_than_the_context_that_is_named() -> None:
    """One token short: the margin and the answer's least are in the number."""
    model, engines = a_model("m", 1000, min_answer_tokens=100), Engines()
    engines.runs(model, 1000, count=885)
    message = "needs 1001 tokens .* cut 1 token from the prompt"
    with pytest.raises(ContextLengthExceeded, match=message):
        await select(selector(model, engines=engines), model, messages=says("a" * 4000))


async def test_an_answer_larger_than_any_context_is_refused_even_when_nothing_can_count() -> None:
    model = a_model()
    with pytest.raises(ContextLengthExceeded, match="needs up to 40") as refused:
        await select(selector(model), model, messages=says("hello"), max_tokens=40_000)
    lowered = int(str(refused.value).rpartition("lower max_tokens to ")[2])
    followed = await select(selector(model), model, messages=says("hello"), max_tokens=lowered)
    assert followed.need == 32768  # with the most that the prompt may have


async def test_where_the_prompt_may_leave_no_room_no_number_is_made_up() -> None:
    model = a_model("m", 1000)
    prompt = "four " * 300  # 300 to 1500 tokens
    with pytest.raises(ContextLengthExceeded, match="at least") as refused:
        await select(selector(model), model, COMPLETION, prompt=prompt, max_tokens=900)
    assert "lower max_tokens, or cut at least" in str(refused.value)


async def test_an_input_too_long_for_embeddings_is_refused_without_a_word_on_answers() -> None:
    model = a_model("m", 512)
    with pytest.raises(ContextLengthExceeded, match="needs at least 600 tokens") as refused:
        await select(selector(model), model, EMBEDDINGS, input=[1] * 600)
    assert "answer" not in str(refused.value)


# -- the answer's room ----------------------------------------------------------------------


async def test_an_answer_that_fits_nowhere_is_lowered_if_the_model_says_so() -> None:
    model, engines = a_model(clamp_answer=True), Engines()
    engines.runs(model, 32768, count=1000)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=says("a" * 4000), max_tokens=40_000)
    assert (selection.clamped, selection.answer) == (40_000, 32768 - 1000 - 16)
    assert (selection.need, selection.context) == (32768, 32768)
    assert "lowered from 40000 to 31752" in selection.reason


async def test_an_answer_is_lowered_by_what_is_certain_when_nothing_can_count() -> None:
    """By the upper bound it would be cut for nothing, as soon as a prompt is a fourth of a context
    that no engine has ever counted in."""
    model = a_model("m", 1000, clamp_answer=True)
    prompt = "four " * 200  # bytes 1000
    selection = await select(selector(model), model, COMPLETION, prompt=prompt, max_tokens=5000)
    assert (selection.answer, selection.clamped) == (1000 - 200 - 16, 5000)
    assert selection.need == 1000


async def test_an_engine_that_refuses_the_sum_says_what_the_answer_is_lowered_to() -> None:
    model = a_model("m", 1000, clamp_answer=True)
    subject = selector(model)
    prompt = "four " * 200
    selection = await select(subject, model, COMPLETION, prompt=prompt, max_tokens=5000)
    again = subject.select_larger(selection, 300, 1000)
    assert (again.answer, again.clamped, again.need) == (1000 - 300 - 16, 5000, 1000)
    with pytest.raises(ContextLengthExceeded, match="1000 for the prompt"):
        subject.select_larger(selection, 1000, 1000)


def vllm(selection: Selection, tokens: int, context: int = 1000) -> int | None:
    """What it says of a prompt with so many: at least how many it has, beside the answer that it is
    asked for. None: it answers."""
    assert selection.answer is not None
    room = context - selection.answer
    return None if tokens <= room else min(tokens, room + 1)


@pytest.mark.parametrize("tokens", [220, 400, 480, 484])
async def test_an_engine_that_says_the_least_only_is_asked_for_what_fits_for_sure(
    tokens: int,
) -> None:
    model = a_model("m", 1000, clamp_answer=True, min_answer_tokens=500)
    subject = selector(model)
    prompt = "four " * 200  # 200 to 1000 tokens
    selection = await select(subject, model, COMPLETION, prompt=prompt, max_tokens=5000)
    least = vllm(selection, tokens)
    assert least is not None
    again = subject.select_larger(selection, least, 1000, is_least=True)
    assert (again.clamped, again.context) == (5000, 1000)
    assert vllm(again, tokens) is None
    assert not subject._counter.calibration(model).errors()


async def test_what_an_engine_says_the_least_of_is_told_so_that_following_it_is_enough() -> None:
    model = a_model("m", 1000)
    subject = selector(model)
    selection = await select(subject, model, COMPLETION, prompt="four " * 100, max_tokens=600)
    assert vllm(selection, 450) == 401
    with pytest.raises(ContextLengthExceeded, match="needs up to") as refused:
        subject.select_larger(selection, 401, 1000, is_least=True)
    lowered = int(str(refused.value).split("lower max_tokens to ")[1].split(",")[0])
    again = msgspec.structs.replace(selection, answer=lowered)
    assert vllm(again, 450) is None
    with pytest.raises(ContextLengthExceeded, match="cut at least"):
        subject.select_larger(selection, 1001, 1000, is_least=True)
    larger = a_model("l", 1000, 4000)
    grown = await select(selector(larger), larger, COMPLETION, prompt="four", max_tokens=600)
    assert selector(larger).select_larger(grown, 401, 1000, is_least=True).context == 4000


async def test_no_answer_is_lowered_below_the_least() -> None:
    model, engines = a_model("m", 1000, clamp_answer=True, min_answer_tokens=300), Engines()
    engines.runs(model, 1000, count=800)
    with pytest.raises(ContextLengthExceeded, match="lower max_tokens to 184"):
        await select(
            selector(model, engines=engines), model, messages=says("a" * 4000), max_tokens=5000
        )


async def test_an_answer_without_a_maximum_gets_at_least_what_the_model_says() -> None:
    model, engines = a_model("m", 1000, 2000, min_answer_tokens=700), Engines()
    engines.runs(model, 1000, count=1284)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=says("a" * 4000))
    assert (selection.need, selection.context) == (2000, 2000)


# -- room to grow ---------------------------------------------------------------------------


async def test_an_engine_that_is_started_gets_headroom_and_a_running_one_needs_none() -> None:
    model, engines = a_model(headroom=0.5), Engines()
    engines.runs(model, 2048, count=1500)
    subject = selector(model, engines=engines)
    selection = await select(subject, model, messages=says("a" * 4000), max_tokens=100)
    assert (selection.need, selection.start_need) == (1616, 2424)
    assert selection.context == 2048


async def test_what_generates_nothing_does_not_grow() -> None:
    model = a_model(headroom=0.5)
    selection = await select(selector(model), model, EMBEDDINGS, input=[1] * 100)
    assert selection.start_need == selection.need == 101


async def test_a_conversation_starts_with_room_for_one_more_average_turn() -> None:
    model = a_model(headroom=0.0)
    subject = selector(model)
    talk = [*says("hello"), {"role": "assistant", "content": "hi"}, *says("a" * 400)]
    first = await select(subject, model, messages=talk, max_tokens=100)
    assert first.start_need == first.need
    subject.note_answer(first, Usage(prompt_tokens=500, completion_tokens=200))
    second = await select(subject, model, messages=talk, max_tokens=100)
    assert second.start_need == second.need + 300  # an answer of 200, and 400 bytes


async def test_without_a_word_an_answer_needs_the_least_or_an_average_turn() -> None:
    model = a_model("m", 1024, 8192)
    subject = selector(model, default_answer_tokens=None)
    talk = [*says("hello"), {"role": "assistant", "content": "hi"}, *says("and?")]
    first = await select(subject, model, messages=talk)
    assert (first.need, first.context) == (first.prompt + 512 + 16, 1024)
    subject.note_answer(first, Usage(prompt_tokens=first.prompt, completion_tokens=3000))
    second = await select(subject, model, messages=talk)
    # Before an answer that is likely to outgrow the small one, not in the middle of it.
    assert (second.need, second.context) == (second.prompt + 3001 + 16, 8192)


# -- what answers teach ---------------------------------------------------------------------


async def test_a_bound_that_was_too_low_is_raised_from_then_on() -> None:
    model = a_model()
    subject = selector(model)
    selection = await select(subject, model, messages=says("hello"), max_tokens=10)
    subject.note_answer(selection, Usage(prompt_tokens=selection.prompt + 40))
    again = await select(subject, model, messages=says("hello"), max_tokens=10)
    assert again.prompt == selection.prompt + 40


async def test_after_a_refusal_the_next_variant_gets_the_request_with_the_true_size() -> None:
    model = a_model()
    subject = selector(model)
    selection = await select(subject, model, messages=says("hello"), max_tokens=10)
    larger = subject.select_larger(selection, prompt=2100, refused_context=2048)
    assert (larger.prompt, larger.need, larger.context) == (2100, 2126, 8192)
    smaller_than_promised = subject.select_larger(selection, prompt=1000, refused_context=2048)
    assert (smaller_than_promised.need, smaller_than_promised.context) == (2049, 8192)


async def test_a_refusal_teaches_what_an_answer_would_have_taught() -> None:
    model = a_model()
    subject = selector(model)
    selection = await select(subject, model, messages=says("hello"), max_tokens=10)
    subject.select_larger(selection, prompt=2100, refused_context=2048)
    again = await select(subject, model, messages=says("hello"), max_tokens=10)
    assert (again.prompt, again.context) == (2100, 8192)


async def test_after_a_refusal_by_the_largest_the_error_says_how_much_to_cut() -> None:
    model = a_model()
    subject = selector(model)
    selection = await select(subject, model, messages=says("hello"), max_tokens=10)
    with pytest.raises(ContextLengthExceeded, match="cut 258 tokens from the prompt"):
        subject.select_larger(selection, prompt=33_000, refused_context=32768)


async def test_a_batch_beyond_the_budget_is_chosen_for_by_its_bound_and_says_so() -> None:
    engines, subject_model = Engines(), a_model("m")
    subject = selector(subject_model, engines=engines)
    client = engines.runs(subject_model, 2048, 500)
    prompts = [f"{number:08d}" + "x" * 3_000 for number in range(5_000)]
    chosen = await select(subject, subject_model, "completions", prompt=prompts, max_tokens=1)
    assert (chosen.context, chosen.prompt, chosen.source) == (8192, 3_024, CountSource.BOUND)
    reason = "the batch has 4936 prompts more than are counted, so the bound decides"
    assert chosen.reason == reason
    counted = [
        msgspec.json.decode(body) for endpoint, body in client.asked if endpoint == "completions"
    ]
    assert [len(body["prompt"]) for body in counted] == [64]
