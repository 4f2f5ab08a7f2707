"""The bounds beside exact counts of a real vocabulary: no text lies outside them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.thoroughness import examples
from trio_gateway.config.lua.presets import preset
from trio_gateway.models.counting.vocabulary_worker import Counter
from trio_gateway.models.need.bounds import Overhead, lower_bound, upper_bound
from trio_gateway.models.need.calibration import PROBES, Calibration
from trio_gateway.models.need.contents import RequestFields

CHAT, COMPLETION = "chat/completions", "completions"
# Blanks, dashes and words that vocabularies have long tokens for, beside text of any kind.
PIECES = st.sampled_from(
    [
        " " * 40,
        "\n\n",
        "-" * 60,
        "\t",
        "=" * 16,
        "internationalization",
        "<|im_end|>",
        "0000",
        " the",
        "\x04 \x06 \x13 ",
    ]
)
TEXTS = st.text(max_size=60) | st.lists(PIECES | st.text(max_size=10), max_size=12).map("".join)
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": TEXTS | TEXTS.map(lambda t: [{"type": "text", "text": t}])}
    ),
    min_size=1,
    max_size=6,
)
SETTINGS = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def counter() -> Counter:
    return Counter()


def count(counter: Counter, **asked: Any) -> int | None:
    """What SmolLM2's own vocabulary and template make of it; None where they decline."""
    question = {"gguf": preset("models", "smollm2"), **asked}
    answer = counter.answer(msgspec.json.encode(question))
    return answer.tokens if answer.exact else None


def learned(counter: Counter) -> Overhead:
    calibration = Calibration()
    calibration.learn([count(counter, chat=probe) for probe in PROBES], by_engine=True)
    assert calibration.is_learned
    return calibration.overhead


def fields_of(**request: Any) -> RequestFields:
    return msgspec.json.decode(msgspec.json.encode(request), type=RequestFields)


def encodable(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "ignore").decode() == text


@SETTINGS
@given(TEXTS.filter(encodable))
@example("\x04 \x06 \x13 \x14")  # SmolLM2 has no token for any of these four
def test_the_exact_count_of_a_text_lies_between_its_bounds(counter: Counter, text: str) -> None:
    exact = count(counter, prompts=[text])
    if exact is None:  # letters that are newer than llama.cpp's tables
        return
    fields = fields_of(prompt=text)
    assert lower_bound(COMPLETION, fields) <= exact <= upper_bound(COMPLETION, fields, Overhead())


@SETTINGS
@given(MESSAGES)
def test_the_exact_count_of_a_chat_lies_between_its_bounds(
    counter: Counter, messages: list[dict[str, Any]]
) -> None:
    exact = count(counter, chat={"messages": messages})
    if exact is None:
        return
    fields = fields_of(messages=messages)
    assert lower_bound(CHAT, fields) <= exact
    assert exact <= upper_bound(CHAT, fields, learned(counter))
    assert exact <= upper_bound(CHAT, fields, Overhead())


def test_the_exact_counts_are_there(counter: Counter) -> None:
    """Else the properties above would hold of nothing."""
    assert count(counter, prompts=["one two three"]) == 3
    assert count(counter, chat={"messages": [{"role": "user", "content": ""}]}) == 30
    assert learned(counter).base == 30 + 8
