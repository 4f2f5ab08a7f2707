"""Calibration: the template's overhead from five small counts, and errors from every answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.models.need.bounds import Overhead, upper_bound
from trio_gateway.models.need.calibration import (
    KEPT_ERRORS,
    NEWEST_SHARE,
    PROBES,
    SLACK_BASE,
    SLACK_PER_MESSAGE,
    Calibration,
    CountSource,
    ErrorSummary,
)
from trio_gateway.models.need.contents import RequestFields

BOUND, ENGINE = CountSource.BOUND, CountSource.ENGINE
CAUTIOUS = Overhead()
# What a ChatML model counts: 4 tokens a message, 2 before the answer, tools in the system message.
ONE, WITH_SYSTEM, THREE, TOOL, TWO_TOOLS = 8, 13, 18, 130, 160


def learned(*counts: int | None) -> Calibration:
    calibration = Calibration()
    calibration.learn(counts, by_engine=True)
    return calibration


# -- the template ----------------------------------------------------------------------------


def test_a_model_of_which_nothing_was_counted_has_the_cautious_overhead() -> None:
    calibration = Calibration()
    assert (calibration.overhead, calibration.is_learned) == (CAUTIOUS, False)


def test_the_probes_teach_what_the_template_adds() -> None:
    calibration = learned(ONE, WITH_SYSTEM, THREE, TOOL, TWO_TOOLS)
    assert calibration.is_learned
    assert calibration.overhead == Overhead(
        base=WITH_SYSTEM + SLACK_BASE,
        per_message=5 + SLACK_PER_MESSAGE,
        first_tool=TOOL - ONE,
        per_tool=TWO_TOOLS - TOOL,
    )


def test_an_engine_that_refuses_tools_reads_none() -> None:
    calibration = Calibration(refuses_tools=True)
    assert calibration.ignores_tools
    calibration.learn([ONE, WITH_SYSTEM, THREE, None, None], by_engine=True)
    assert calibration.overhead.ignores_tools
    assert not learned(ONE, WITH_SYSTEM, THREE, None, None).ignores_tools


def test_a_system_message_of_the_template_s_own_is_counted() -> None:
    """It goes as soon as a chat has one itself: the first probe has more tokens than the next."""
    assert learned(30, 13, 40, None, None).overhead.base == 30 + SLACK_BASE


def test_half_a_token_a_message_is_a_whole_one() -> None:
    assert learned(8, None, 17, None, None).overhead.per_message == 5 + SLACK_PER_MESSAGE


def test_a_template_that_refuses_every_probe_teaches_nothing() -> None:
    calibration = learned(None, None, None, None, None)
    assert (calibration.overhead, calibration.is_learned) == (CAUTIOUS, False)


def test_without_the_count_of_a_single_message_the_others_mean_nothing() -> None:
    assert not learned(None, WITH_SYSTEM, THREE, TOOL, TWO_TOOLS).is_learned


def test_a_template_without_system_messages_is_learned_from_the_others() -> None:
    assert learned(ONE, None, THREE, TOOL, TWO_TOOLS).overhead.base == ONE + SLACK_BASE


def test_where_three_messages_are_refused_each_costs_what_is_cautious() -> None:
    overhead = learned(ONE, WITH_SYSTEM, None, TOOL, TWO_TOOLS).overhead
    assert overhead.per_message == CAUTIOUS.per_message


def test_where_tools_are_refused_they_cost_what_is_cautious() -> None:
    overhead = learned(ONE, WITH_SYSTEM, THREE, None, None).overhead
    assert (overhead.first_tool, overhead.per_tool) == (CAUTIOUS.first_tool, CAUTIOUS.per_tool)


def test_where_two_tools_are_refused_each_costs_as_much_as_the_first() -> None:
    overhead = learned(ONE, WITH_SYSTEM, THREE, TOOL, None).overhead
    assert (overhead.first_tool, overhead.per_tool) == (TOOL - ONE, TOOL - ONE)


def test_a_template_that_ignores_tools_and_messages_lowers_no_bound_below_zero() -> None:
    overhead = learned(50, 40, 30, 20, 10).overhead
    assert overhead == Overhead(50 + SLACK_BASE, SLACK_PER_MESSAGE, 0, 0)


def test_the_probes_are_learned_in_the_order_in_which_they_are_asked() -> None:
    shapes = [([m["role"] for m in p["messages"]], len(p.get("tools", ()))) for p in PROBES]
    assert shapes == [
        (["user"], 0),
        (["system", "user"], 0),
        (["user", "assistant", "user"], 0),
        (["user"], 1),
        (["user"], 2),
    ]


# -- the bound on a chat ---------------------------------------------------------------------

Chat = dict[str, Any]


class Template:
    """A model of a chat template and a vocabulary: what a message costs depends on its role only,
    a text has at most as many tokens as bytes, and a tool is written out as it came."""

    def __init__(self, draw: st.DrawFn) -> None:
        cost = st.integers(0, 60)
        self.base, self.tools, self.tool = draw(cost), draw(cost), draw(cost)
        self.costs = {role: draw(cost) for role in ("system", "user", "assistant")}
        self.default_system = draw(cost)  # where a chat has no system message
        self.bytes_per_token = draw(st.integers(1, 4))
        self.broken = draw(st.integers(0, SLACK_PER_MESSAGE))  # the template's tokens, by a text

    def count(self, chat: Chat) -> int:
        total = self.base
        if chat["messages"][0]["role"] != "system":
            total += self.default_system
        for message in chat["messages"]:
            total += self.costs[message["role"]] + self._text(message["content"])
            total += self.broken if message["content"] else 0
        if tools := chat.get("tools"):
            total += self.tools + sum(self.tool + self._text(str(tool)) for tool in tools)
        return total

    def _text(self, text: str) -> int:
        return -(-len(text.encode()) // self.bytes_per_token)


@st.composite
def templates(draw: st.DrawFn) -> Template:
    return Template(draw)


@st.composite
def conversations(draw: st.DrawFn) -> Chat:
    """As clients send them: perhaps a system message, then turns, and a user's message."""
    text = st.text(max_size=40)
    messages = [{"role": "system", "content": draw(text)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 30))):
        messages.append({"role": "user", "content": draw(text)})
        messages.append({"role": "assistant", "content": draw(text)})
    messages.append({"role": "user", "content": draw(text)})
    tool = {"type": "function", "function": {"name": "f", "description": "what it does"}}
    tools = [tool] * draw(st.integers(0, 4))
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


@given(templates(), conversations())
def test_no_conversation_has_more_tokens_than_its_bound_once_the_template_is_learned(
    template: Template, chat: Chat
) -> None:
    calibration = learned(*map(template.count, PROBES))
    fields = RequestFields(messages=chat["messages"], tools=chat.get("tools"))
    assert template.count(chat) <= upper_bound("chat/completions", fields, calibration.overhead)


@given(
    cheap=st.integers(0, 60),
    more=st.integers(0, 2 * SLACK_PER_MESSAGE),
    roles=st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=60),
    dear=st.sampled_from(["user", "assistant"]),
)
def test_messages_of_one_role_in_a_row_may_each_cost_eight_tokens_more_than_the_other_role_s(
    cheap: int, more: int, roles: list[str], dear: str
) -> None:
    """As templates do: a user's message costs 6 more in Llama 2's, an answer 2 more in gpt-oss'."""
    costs = {"user": cheap, "assistant": cheap, dear: cheap + more}

    def count(chat: Chat) -> int:
        return sum(costs[message["role"]] for message in chat["messages"])

    chat = {"messages": [{"role": role, "content": ""} for role in roles]}
    calibration = learned(count(PROBES[0]), None, count(PROBES[2]), None, None)
    bound = upper_bound("chat/completions", RequestFields(**chat), calibration.overhead)
    assert count(chat) <= bound


# -- errors ----------------------------------------------------------------------------------


def test_an_answer_that_was_counted_exactly_corrects_nothing() -> None:
    calibration = Calibration()
    calibration.note_answer(100, ENGINE, 100)
    assert calibration.correction(ENGINE) == 0


def test_a_count_that_was_too_high_corrects_nothing() -> None:
    calibration = Calibration()
    calibration.note_answer(130, BOUND, 100)
    assert calibration.correction(BOUND) == 0


def test_a_count_that_was_too_low_is_raised_by_as_much_from_then_on() -> None:
    calibration = Calibration()
    calibration.note_answer(90, BOUND, 100)
    assert calibration.correction(BOUND) == 10
    calibration.note_answer(90 + 10, BOUND, 103, 10)  # the corrected one, still too low
    assert calibration.correction(BOUND) == 13
    calibration.note_answer(90 + 13, BOUND, 100, 13)
    assert calibration.correction(BOUND) == 13  # what was too low once may be so again


def test_answers_to_requests_that_were_counted_alike_raise_it_once() -> None:
    calibration = Calibration()
    for _ in range(3):  # asked side by side: none of them had a correction yet
        calibration.note_answer(90, BOUND, 100)
    assert calibration.correction(BOUND) == 10


def test_each_source_has_a_correction_of_its_own() -> None:
    calibration = Calibration()
    calibration.note_answer(90, CountSource.VOCABULARY, 100)
    assert calibration.correction(CountSource.VOCABULARY) == 10
    assert calibration.correction(CountSource.TOKENIZER) == calibration.correction(BOUND) == 0


def test_without_answers_there_are_no_errors() -> None:
    assert Calibration().errors() == {}


def test_errors_are_summed_up_by_source() -> None:
    calibration = Calibration()
    for error in (0, 0, -3, 5, 0, 0, 0, 0, 2, 8):
        calibration.note_answer(100 + error, ENGINE, 100)
    calibration.note_answer(7, BOUND, 3)
    assert calibration.errors() == {
        "engine": ErrorSummary(answers=10, exact_share=0.6, least=-3, median=0.0, p95=8, most=8),
        "bound": ErrorSummary(answers=1, exact_share=0.0, least=4, median=4, p95=4, most=4),
    }


def test_95_of_100_errors_are_no_larger_than_the_p95() -> None:
    calibration = Calibration()
    for error in range(1, 101):
        calibration.note_answer(error, BOUND, 0)
    assert calibration.errors()["bound"].p95 == 95


def test_only_the_newest_errors_are_kept() -> None:
    calibration = Calibration()
    calibration.note_answer(1, ENGINE, 100_000)
    for _ in range(KEPT_ERRORS):
        calibration.note_answer(5, ENGINE, 5)
    summary = calibration.errors()["engine"]
    assert (summary.answers, summary.least) == (KEPT_ERRORS, 0)


# -- turns -----------------------------------------------------------------------------------


def test_the_first_turn_is_the_average() -> None:
    calibration = Calibration()
    calibration.note_turn(300)
    assert calibration.average_turn_tokens == 300.0


def test_each_later_turn_moves_the_average_by_its_share() -> None:
    calibration = Calibration()
    calibration.note_turn(300)
    calibration.note_turn(800)
    assert calibration.average_turn_tokens == pytest.approx(300 + NEWEST_SHARE * 500)


def test_the_average_ends_where_the_turns_are() -> None:
    calibration = Calibration()
    calibration.note_turn(10_000)
    for _ in range(50):
        calibration.note_turn(100)
    assert calibration.average_turn_tokens == pytest.approx(100, rel=0.01)
