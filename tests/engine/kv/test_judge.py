"""When a model whose restores do not help is left alone."""

from __future__ import annotations

import pytest

from trio_gateway.config.schema import KvCarryoverConfig
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.file import KvEntry
from trio_gateway.engine.kv.judge import Judge
from trio_gateway.engine.scheduling.events import VariantKey

IDS = [*range(7000)]
SAVED, PROMPT = 7000, 6500  # tokens of the conversation, and of its last prompt
CONTINUES, ALL_BUT_FOUR, CHANGED = 7000, 6496, 6440  # tokens that a prompt shares with it


def entry(prompt_tokens: int | None = PROMPT) -> KvEntry:
    return KvEntry(
        name="x", model="m", fingerprint="", tokens=SAVED, prompt_tokens=prompt_tokens,
        size_bytes=1, mtime_ns=1, digest="", saved_at=0,
    )  # fmt: skip


@pytest.fixture
def owner() -> KvCarryover:
    return KvCarryover(KvCarryoverConfig())


@pytest.fixture
def judge(owner: KvCarryover) -> Judge:
    return Judge(owner, VariantKey("m", "v"))


def answers(judge: Judge, shared: int, cached: int | None, saved: KvEntry | None = None) -> None:
    """The conversation is restored for a prompt of the ticket 1, and its answer says this."""
    judge.expect(IDS, saved or entry(), {1: [*IDS[:shared], -1, -2]})
    judge.note_answer(1, Usage(shared + 2, 8, cached))


@pytest.mark.parametrize("shared", [CONTINUES, PROMPT, ALL_BUT_FOUR])
def test_a_turn_that_goes_on_and_finds_nothing_is_a_verdict(
    judge: Judge, owner: KvCarryover, shared: int
) -> None:
    answers(judge, shared, 0)
    assert owner.unhelpful["m"].startswith(f"only 0 of {shared} restored tokens were used")


def test_a_prompt_whose_end_was_changed_is_none_until_it_happens_twice(
    judge: Judge, owner: KvCarryover
) -> None:
    """A recurrent model reads all of it again, with or without a swap."""
    answers(judge, CHANGED, 0)
    assert owner.unhelpful == {}
    answers(judge, CHANGED, 0)
    assert set(owner.unhelpful) == {"m"}


def test_a_restore_that_helped_in_between_begins_the_count_anew(
    judge: Judge, owner: KvCarryover
) -> None:
    for _ in range(3):
        answers(judge, CHANGED, 0)
        answers(judge, CONTINUES, CONTINUES - 1)
    assert owner.unhelpful == {}
    assert owner.counts["m"].unhelpful_restores == 3


def test_where_the_last_prompt_is_not_known_all_of_the_conversation_counts(
    judge: Judge, owner: KvCarryover
) -> None:
    answers(judge, 6900, 0, entry(None))
    assert owner.unhelpful == {}
    answers(judge, SAVED - 4, SAVED - 5, entry(None))
    answers(judge, SAVED - 4, 0, entry(None))
    assert set(owner.unhelpful) == {"m"}


def test_an_answer_that_says_nothing_of_the_cache_is_no_verdict(
    judge: Judge, owner: KvCarryover
) -> None:
    answers(judge, CONTINUES, None)
    answers(judge, CONTINUES // 4, 0)  # another conversation, that begins alike
    assert (owner.unhelpful, owner.misses) == ({}, {})


def test_the_prompt_of_a_conversation_is_known_by_its_length(judge: Judge) -> None:
    judge.note_answer(1, Usage(1000, 200))
    assert judge.prompt_tokens(1199) == 1000  # the slot lacks the last token
    assert judge.prompt_tokens(1200) == 1000
    assert judge.prompt_tokens(1000) is None
    for tokens in range(2000, 2100):
        judge.note_answer(1, Usage(tokens, 1))
    assert judge.prompt_tokens(1199) is None
    assert judge.prompt_tokens(2099) == 2099
