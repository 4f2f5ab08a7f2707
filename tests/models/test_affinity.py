"""All turns of a conversation have one affinity key, and nobody else has that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_gateway.models import affinity
from trio_gateway.models.affinity import affinity_key
from trio_gateway.models.cache_breaks import CacheBreaks, Chat
from trio_gateway.models.need.beginning import PROMPT_CHARACTERS, PROMPT_IDS
from trio_gateway.models.need.counted_form import CountedForm, made_form
from trio_gateway.models.need.measured_form import Form, MeasuredForm, measured
from trio_gateway.models.need.messages_form import messages_as_chat
from trio_gateway.models.need.responses_form import responses_as_chat

Json = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief. " * 300}
TURNS: list[Json] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "How are you?"},
]
LONG = "x" * PROMPT_CHARACTERS


def key(form: Form, **more: Any) -> str | None:
    return affinity_key("ann", "m", form, **{"session": None, **more})


def chat(*messages: Any, **more: Any) -> CountedForm:
    return made_form("chat/completions", {"messages": [*messages], **more})


def prompt(given: Any) -> CountedForm:
    return made_form("completions", {"prompt": given})


def read_elsewhere(form: CountedForm) -> MeasuredForm:
    """As a helper process tells of a large request."""
    there = msgspec.json.encode(measured(form, 1024))
    return msgspec.json.decode(there, type=MeasuredForm)


@pytest.mark.parametrize(
    "turns",
    [
        [chat(SYSTEM, *TURNS[:1]), chat(SYSTEM, *TURNS), chat(SYSTEM, *TURNS, tools=[{}])],
        [chat(*TURNS[:1]), chat(*TURNS, max_tokens=7)],
        [
            messages_as_chat({"system": "Be brief.", "messages": TURNS[:1]}),
            messages_as_chat({"system": "Be brief.", "messages": TURNS, "stream": True}),
        ],
        [
            responses_as_chat({"instructions": "Be brief.", "input": "Hi"}),
            responses_as_chat({"instructions": "Be brief.", "input": TURNS}),
        ],
        [prompt(LONG), prompt(LONG + "more"), prompt([LONG + "much more", "another"])],
        [prompt([7] * PROMPT_IDS), prompt([7] * PROMPT_IDS + [8])],
        [prompt({"prompt_string": LONG}), prompt({"prompt_string": LONG + "more"})],
    ],
    ids=["chat", "without-system", "messages", "responses", "prompt", "ids", "media"],
)
def test_all_turns_of_a_conversation_have_one_key(turns: list[CountedForm]) -> None:
    found = {*map(key, turns), *map(key, map(read_elsewhere, turns))}
    assert len(found) == 1
    (one,) = found
    assert one is not None
    assert len(bytes.fromhex(one)) == 8


def test_what_differs_has_other_keys() -> None:
    first = chat(SYSTEM, TURNS[0])
    others = [
        chat(SYSTEM, TURNS[2]),
        chat({"role": "system", "content": "Be kind."}, TURNS[0]),
        chat(TURNS[0]),
        prompt("Hi"),
        prompt(LONG),
        prompt("y" + LONG),
        prompt([1, 2]),
    ]
    found = [key(first), *map(key, others)]
    found += [key(first, session=name) for name in ("one", "two")]
    found += [affinity_key(owner, "m", first, None) for owner in ("", "bob")]
    found += [affinity_key("ann", "n", first, None)]
    assert None not in found
    assert len({*found}) == len(found)


def test_what_a_client_calls_its_conversation_comes_first() -> None:
    assert key(chat(TURNS[0]), session="one") == key(chat(SYSTEM, TURNS[2]), session="one")


def test_a_conversation_whose_first_turns_were_left_out_keeps_its_key() -> None:
    breaks = CacheBreaks()
    long = [
        turn
        for n in range(4)
        for turn in (
            {"role": "user", "content": f"question {n} " * 9},
            {"role": "assistant", "content": f"answer {n} " * 9},
        )
    ]
    found = []
    for part in (long[:3], long[:5], long[2:7]):
        noted = Chat(1, [SYSTEM, *part])
        breaks.note("ann", "m", noted)
        assert noted.thread is not None
        found.append(key(chat(SYSTEM, *part), thread=noted.thread.beginning))
    assert found[0] == key(chat(SYSTEM, long[0]))
    assert len({*found}) == 1


@pytest.mark.parametrize(
    "form",
    [
        chat(),
        chat(SYSTEM),
        chat(messages="none"),
        prompt(""),
        prompt([]),
        prompt([""]),
        prompt(None),
        prompt(7),
        made_form("embeddings", {"input": "x"}),
    ],
)
def test_what_tells_no_conversation_has_none(form: CountedForm) -> None:
    assert key(form) is None
    assert key(form, session="one") is None
    assert key(read_elsewhere(form)) is None


def test_odd_messages_have_one_as_well() -> None:
    odd: list[Any] = [
        7,
        None,
        [],
        {},
        {"role": []},
        {"content": {"a": 1}},
        {"role": "user", "content": [7]},
    ]
    assert None not in [key(chat(message)) for message in odd]


def test_another_run_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows a text cannot tell its key."""
    before = key(chat(SYSTEM, *TURNS))
    monkeypatch.setattr(affinity, "_SALT", b"another run's 16")
    assert key(chat(SYSTEM, *TURNS)) != before
