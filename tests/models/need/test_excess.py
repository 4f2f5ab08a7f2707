"""What a request is told that is too long: its sums add up, and its advice can be followed."""

from __future__ import annotations

import re

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.models.need.bounds import MARGIN_TOKENS
from trio_gateway.models.need.excess import (
    Excess,
    Known,
    Terms,
    anthropic_sentence,
    excess_of,
    sentence,
)

# As Claude Code reads them.
SUM = re.compile(r"input length and `max_tokens` exceed context limit: (\d+) \+ (\d+) > (\d+)")
PROMPT = re.compile(r"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)")


def excess(
    prompt: int,
    answer: int | None,
    context: int = 4096,
    *,
    clamps: bool = False,
    known: Known = Known.EXACTLY,
) -> Excess:
    return excess_of(
        model("m", variant(context)), context, prompt, answer, clamps=clamps, known=known
    )


def numbers(pattern: re.Pattern[str], text: str) -> tuple[int, ...]:
    found = pattern.search(text)
    assert found is not None, text
    return tuple(map(int, found.groups()))


# -- OpenAI's words -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            excess(20280, 32000, 40960),
            "the request needs 52296 tokens (20280 for the prompt, 32000 for the answer "
            "(max_tokens) and 16 of margin), but this model's maximum context length is 40960 "
            "tokens (m); lower max_tokens to 20664, or cut 11336 tokens from the prompt",
        ),
        (
            excess(2, 99999),
            "the request needs 100017 tokens (2 for the prompt, 99999 for the answer (max_tokens) "
            "and 16 of margin), but this model's maximum context length is 4096 tokens (m); "
            "lower max_tokens to 4078",
        ),
        (
            excess(5000, None),
            "the request needs 5528 tokens (5000 for the prompt, at least 512 for the answer and "
            "16 of margin), but this model's maximum context length is 4096 tokens (m); cut 1432 "
            "tokens from the prompt",
        ),
        (
            excess(5000, 0),
            "the request needs 5000 tokens (5000 for the prompt), but this model's maximum context "
            "length is 4096 tokens (m); cut 904 tokens from the prompt",
        ),
        (
            excess(5000, 90000),
            "the request needs 95016 tokens (5000 for the prompt, 90000 for the answer "
            "(max_tokens) and 16 of margin), but this model's maximum context length is 4096 "
            "tokens (m); shorten the prompt, and lower max_tokens",
        ),
        (
            excess(4000, 1000, known=Known.AT_MOST),
            "the request needs up to 5016 tokens (up to 4000 for the prompt, 1000 for the answer "
            "(max_tokens) and 16 of margin), but this model's maximum context length is 4096 "
            "tokens (m); lower max_tokens to 80, or cut up to 920 tokens from the prompt",
        ),
        (  # how far, nobody knows yet
            excess(3500, 1000, known=Known.AT_LEAST),
            "the request needs at least 4516 tokens (at least 3500 for the prompt, 1000 for the "
            "answer (max_tokens) and 16 of margin), but this model's maximum context length is "
            "4096 tokens (m); lower max_tokens, or cut at least 420 tokens from the prompt",
        ),
    ],
)
def test_a_sentence_names_every_share_and_what_helps(given: Excess, said: str) -> None:
    assert sentence(given) == said


def test_every_sum_adds_up() -> None:
    for prompt in (1, 1024, 3500, 4079, 4080, 4096, 9000):
        for answer in (None, 0, 1, 600, 5000):
            given = excess(prompt, answer)
            if given.need <= given.context:
                continue
            (total,) = numbers(re.compile(r"needs (\d+) tokens"), sentence(given))
            shares = re.search(r"\((.*)\), but", sentence(given))
            assert shares is not None
            assert total == sum(map(int, re.findall(r"\d+", shares[1])))


def test_a_limit_has_the_name_that_the_client_used() -> None:
    said = sentence(excess(100, 99999), Terms("num_predict"))
    assert "99999 for the answer (num_predict)" in said
    assert said.endswith("lower num_predict to 3980")
    assert "max_tokens" not in said


def test_what_the_configuration_sets_no_client_is_told_to_lower() -> None:
    said = sentence(excess(3000, 2000), Terms(is_fixed=True))
    assert "2000 for the answer (max_tokens, set by the configuration)" in said
    assert said.endswith("(m); cut 920 tokens from the prompt")
    assert PROMPT.search(anthropic_sentence(excess(3000, 2000), Terms(is_fixed=True)))


@pytest.mark.parametrize("prompt", [10, 4000, 5000])
def test_no_advice_is_about_what_was_not_sent(prompt: int) -> None:
    starved = excess_of(
        model("m", variant(4096), min_answer_tokens=9000), 4096, prompt, None, clamps=True
    )
    assert "max_tokens" not in sentence(starved)
    assert "lower" not in sentence(starved)


# -- Anthropic's ----------------------------------------------------------------------------


def test_a_prompt_that_alone_does_not_fit_is_too_long() -> None:
    assert anthropic_sentence(excess(208310, 32000, 200000)) == (
        "prompt is too long: 208310 tokens > 200000 maximum"
    )


def test_a_sum_that_does_not_fit_is_one_that_a_lower_maximum_mends() -> None:
    assert anthropic_sentence(excess(20264, 32000, 40960)).startswith(
        "input length and `max_tokens` exceed context limit: 20280 + 32000 > 40960, decrease input "
        "length or `max_tokens` and try again"
    )


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize("answer", [None, 1, 2, 600, 5000])
def test_what_is_printed_is_true_and_following_it_is_enough(
    answer: int | None, clamps: bool
) -> None:
    for prompt in (1, 2000, 3500, 3584, 4078, 4079, 4080, 4095, 4096, 4097, 9000):
        given = excess(prompt, answer, clamps=clamps)
        if given.need <= given.context:
            continue
        said = anthropic_sentence(given)
        if (found := SUM.search(said)) is not None:
            a, b, c = map(int, found.groups())
            assert (b, c, a + b > c) == (answer, 4096, True)
            assert prompt + (c - a) + MARGIN_TOKENS <= 4096
            assert c - a >= 1
        else:
            tokens, most = numbers(PROMPT, said)
            assert tokens > most == 4096
            assert prompt + MARGIN_TOKENS >= 4096 or answer is None


def test_an_answer_that_would_be_lowered_too_far_makes_the_prompt_too_long_as_well() -> None:
    """Where the sum alone is told, Claude Code gives up; here it is to compact."""
    said = anthropic_sentence(excess(3900, 32000, clamps=True))
    assert numbers(SUM, said) == (3916, 32000, 4096)
    assert numbers(PROMPT, said) == (3900 + 512 + 16, 4096)
    assert PROMPT.search(anthropic_sentence(excess(3900, 32000, clamps=False))) is None
