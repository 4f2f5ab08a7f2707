"""A request that parts early from the last one of its conversation is told where."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_gateway.models.cache_breaks import BYTES_MAX, CHATS_MAX, CacheBreak, CacheBreaks, Chat
from trio_gateway.models.need.outline import KEPT_BYTES, PARTS_MAX, outline_of

Json = dict[str, Any]


def says(role: str, text: Any, **more: Any) -> Json:
    return {"role": role, "content": text, **more}


def system(text: str) -> Json:
    return says("system", text)


QUESTION = says("user", "How do I boil an egg? " * 20)
ANSWER = says("assistant", "In water. " * 40)
MORE = says("user", "And a potato? " * 20)
LAST = says("assistant", "The same way. " * 20)
THANKS = says("user", "Thanks.")
BYE = [says("assistant", "You are welcome."), says("user", "Bye.")]
TOOL: Json = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CLOCK = "You are kind. It is {} now. " + "Be brief. " * 100


@pytest.fixture(params=[False, True], ids=["decoded", "outlined"])
def chat(request: pytest.FixtureRequest) -> Any:
    def made(messages: list[Json], tools: list[Json] | None = None) -> Chat:
        size = len(msgspec.json.encode([messages, tools]))
        if not request.param:
            return Chat(size, messages, tools)
        outline = outline_of(messages, tools)
        assert outline is not None
        return Chat.of_outline(size, msgspec.convert(msgspec.to_builtins(outline), type(outline)))

    return made


def noted(*chats: Chat) -> CacheBreak | None:
    """What is said of the last of them."""
    breaks, found = CacheBreaks(), None
    for one in chats:
        found = breaks.note("", "m", one)
    return found


@pytest.mark.parametrize(
    ("messages", "following"),
    [
        ([QUESTION], [QUESTION, ANSWER, MORE]),
        ([system("Be kind."), QUESTION], [system("Be kind."), QUESTION, ANSWER, MORE]),
        # The same again, or another answer to the same question.
        ([system("A" * 99), QUESTION], [system("A" * 99), QUESTION]),
        ([system("A" * 99), QUESTION], [system("B" * 99), QUESTION]),
        # A title for the chat, asked for beside it.
        ([system("A" * 999), QUESTION], [system("Make a title."), QUESTION]),
        # Another conversation.
        ([system("A" * 99), QUESTION], [system("B" * 99), MORE, ANSWER, THANKS]),
        # The last message was edited.
        ([QUESTION, ANSWER, MORE], [QUESTION, ANSWER, THANKS, LAST, MORE]),
        # A text is the same as one in parts, with or without a mark for a cache.
        (
            [says("user", [{"type": "text", "text": "Hi", "cache_control": {"type": "e"}}])],
            [says("user", "Hi"), ANSWER, MORE],
        ),
        # What was thought is left out by templates.
        (
            [QUESTION, {**ANSWER, "reasoning_content": "Hm. " * 500}, MORE],
            [QUESTION, ANSWER, MORE, LAST, THANKS],
        ),
    ],
)
def test_nothing_is_wrong(chat: Any, messages: list[Json], following: list[Json]) -> None:
    assert noted(chat(messages), chat(following)) is None


@pytest.mark.parametrize(
    ("messages", "following", "part"),
    [
        (
            [system(CLOCK.format("10:41")), QUESTION],
            [system(CLOCK.format("10:42")), QUESTION, ANSWER, MORE],
            "messages[0] (system)",
        ),
        (
            [says("developer", CLOCK.format("10:41")), QUESTION, ANSWER, MORE],
            [says("developer", CLOCK.format("10:42")), QUESTION, ANSWER, MORE, LAST, THANKS],
            "messages[0] (developer)",
        ),
        # The oldest messages were left out, for want of room.
        (
            [QUESTION, ANSWER, MORE, LAST, THANKS],
            [MORE, LAST, THANKS, *BYE],
            "messages[0] (user)",
        ),
        # An earlier answer was changed, or a tool's result was cut.
        (
            [THANKS, ANSWER, QUESTION, says("tool", "x" * 2000), LAST, MORE],
            [THANKS, says("assistant", "Cut."), QUESTION, says("tool", "x" * 2000), LAST, MORE,
             *BYE],
            "messages[1] (assistant)",
        ),
        # A system text came or went.
        ([QUESTION], [system("Be kind."), QUESTION, ANSWER, MORE], "messages[0] (system)"),
    ],
)  # fmt: skip
def test_where_it_breaks(chat: Any, messages: list[Json], following: list[Json], part: str) -> None:
    found = noted(chat(messages), chat(following))
    assert found is not None
    assert found.part == part
    assert found.shared_bytes < found.last_bytes / 2


def test_tools_come_first(chat: Any) -> None:
    """Templates write them before the messages."""
    other = {**TOOL, "function": {**TOOL["function"], "description": "New."}}
    first = chat([QUESTION], [TOOL, TOOL])
    found = noted(first, chat([QUESTION, ANSWER, MORE], [TOOL, other]))
    assert found is not None
    assert found.part == "tools[1]"


def test_the_text_around_is_shown_of_both(chat: Any) -> None:
    first = chat([system(CLOCK.format("10:41:53")), QUESTION])
    found = noted(first, chat([system(CLOCK.format("10:42:07")), QUESTION, ANSWER, MORE]))
    assert found is not None
    assert found.at is not None
    at = len(b"system\nYou are kind. It is 10:4")
    assert (found.at, found.where) == (at, f"messages[0] (system), byte {at}")
    assert "It is 10:42:07 now" in found.now
    assert "It is 10:41:53 now" in found.before
    assert len(found.now) <= 72
    assert found.now not in str(found)
    assert repr(found.now) in found.excerpts


def test_what_is_far_back_is_named_without_its_text(chat: Any) -> None:
    """Parts are told by digests; of the text only the beginning is kept."""
    filler = system("word " * KEPT_BYTES)
    early, later = says("user", "a" * 9 + "b" * 10**6), says("user", "b" * 10**6)
    first = chat([filler, QUESTION, early, ANSWER, MORE])
    found = noted(first, chat([filler, QUESTION, later, ANSWER, MORE, LAST, THANKS]))
    assert found is None or found.at is None


def test_neither_keys_nor_models_are_compared(chat: Any) -> None:
    first = chat([system(CLOCK.format("10:41")), QUESTION])
    second = chat([system(CLOCK.format("10:42")), QUESTION, ANSWER, MORE])
    for owner, model, is_told in (("a", "m", True), ("b", "m", False), ("a", "n", False)):
        breaks = CacheBreaks()
        breaks.note("a", "m", first)
        assert (breaks.note(owner, model, second) is not None) == is_told


def test_the_last_request_is_the_one_that_counts(chat: Any) -> None:
    """Each turn of a conversation that breaks its cache each time is told."""
    breaks = CacheBreaks()
    turns = [QUESTION, ANSWER, MORE, LAST, THANKS, ANSWER, QUESTION]
    told = [breaks.note("", "m", chat([system(CLOCK.format(n)), *turns[:n]])) for n in (1, 3, 5, 7)]
    assert [found is not None for found in told] == [False, True, True, True]


def test_a_conversation_is_found_again_among_others_that_begin_alike(chat: Any) -> None:
    """Agents ask for a title with the same first message."""
    breaks = CacheBreaks()
    long = system("You are an agent. " * 200)
    assert breaks.note("", "m", chat([long, QUESTION])) is None
    assert breaks.note("", "m", chat([system("Make a title."), QUESTION])) is None
    assert breaks.note("", "m", chat([long, QUESTION, ANSWER, MORE])) is None
    assert breaks.note("", "m", chat([long, QUESTION, ANSWER, MORE, LAST, THANKS])) is None


def test_a_conversation_has_one_thread_and_another_that_begins_alike_a_thread_of_its_own(
    chat: Any,
) -> None:
    breaks = CacheBreaks()
    first = [QUESTION], [QUESTION, ANSWER, MORE], [QUESTION, ANSWER, MORE, LAST, THANKS]
    again = [QUESTION], [QUESTION, LAST, THANKS]
    threads = []
    for messages in (*first, *again, [*first[-1], *BYE], [MORE]):
        noted_chat = chat(messages)
        breaks.note("", "m", noted_chat)
        threads.append(noted_chat.thread)
    assert len({*threads[:3], threads[5]}) == 1
    assert len({*threads[3:5]}) == 1
    assert len({threads[0], threads[3], threads[6]}) == 3
    assert threads[0].beginning == threads[3].beginning != threads[6].beginning


def test_a_conversation_whose_first_messages_were_left_out_keeps_its_thread(chat: Any) -> None:
    breaks = CacheBreaks()
    before = chat([QUESTION, ANSWER, MORE, LAST, THANKS])
    after = chat([MORE, LAST, THANKS, *BYE])
    for one in (before, after):
        breaks.note("", "m", one)
    assert after.thread == before.thread


@pytest.mark.parametrize(
    ("messages", "tools"),
    [([], None), (None, None), ("Hi", None), ([None], "x"), ([{"role": ["x"]}], [3]),
     ([system("a")], None), ([{"content": 3}], {}), ([QUESTION] * (PARTS_MAX + 1), None)],
)  # fmt: skip
def test_whatever_comes_harms_nothing(messages: Any, tools: Any) -> None:
    breaks = CacheBreaks()
    for _ in range(2):
        assert breaks.note("", "m", Chat(9, messages, tools)) is None


def test_a_role_is_no_way_into_a_header() -> None:
    first = [says("a\r\nx: y", "A" * 999), QUESTION]
    second = [says("a\r\nx: y", "B" * 999), QUESTION, ANSWER, MORE]
    found = noted(Chat(9, first), Chat(9, second))
    assert found is None or "\r" not in found.where


def test_what_is_remembered_has_a_bound() -> None:
    breaks = CacheBreaks()
    for number in range(CHATS_MAX * 2):
        breaks.note("", "m", Chat(BYTES_MAX // 10, [says("user", f"{number}")]))
    assert len(breaks._chats) <= 10
    assert breaks._bytes <= BYTES_MAX
    for number in range(CHATS_MAX * 2):
        breaks.note("", "m", Chat(9, [says("user", f"{number}")]))
    assert breaks._count == CHATS_MAX
    breaks.note("", "m", Chat(BYTES_MAX + 1, [QUESTION]))
    assert breaks._bytes == 0
