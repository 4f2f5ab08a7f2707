"""What is known of a variant once more of it was measured."""

from __future__ import annotations

import pytest

from trio_gateway.engine.ledger.entry import (
    VERDICT_HOLDS_S,
    Entry,
    News,
    Verdict,
    short_text,
)

OLD = Entry(at=1.0, build="b1", memory_bytes=500, load_s=2.0, speed=10.0, tools=True)


def test_a_newer_one_keeps_what_only_the_older_has_and_the_most_memory() -> None:
    newer = Entry(at=2.0, build="b1", memory_bytes=400, speed=20.0, tools=False)
    assert newer.after(OLD) == Entry(
        at=2.0, build="b1", memory_bytes=500, load_s=2.0, speed=20.0, tools=False
    )
    assert newer.after(None) == newer


def test_another_build_begins_anew() -> None:
    newer = Entry(at=2.0, build="b2", speed=20.0)
    assert newer.after(OLD) == newer


@pytest.mark.parametrize(
    ("changed", "news"),
    [
        ({}, News.NONE),
        ({"at": 9.0}, News.NONE),
        ({"speed": 10.5}, News.NONE),
        ({"speed": 12.0}, News.SPEED),
        ({"prompt_speed": 12.0}, News.FACT),  # it was not known
        ({"speed": 12.0, "memory_bytes": 501}, News.FACT),
        ({"tools": False}, News.FACT),
        ({"restore": Verdict(helps=True, said="all")}, News.FACT),
    ],
)
def test_what_is_worth_a_write(changed: dict[str, object], news: News) -> None:
    import msgspec

    assert msgspec.structs.replace(OLD, **changed).news_to(OLD) is news


@pytest.mark.parametrize("name", ["m:4096", "x" * 5000, "\udcff", "\0"])
def test_what_is_written_can_be_read_whatever_the_name(name: str) -> None:
    import msgspec

    entry = Entry(at=1.0, name=short_text(name))
    assert msgspec.json.decode(msgspec.json.encode(entry), type=Entry) == entry


def test_the_first_one_is_news() -> None:
    assert OLD.news_to(None) is News.FACT


def test_a_verdict_that_costs_all_later_restores_is_looked_at_again_one_day() -> None:
    entry = Entry(at=0.0, restore=Verdict(helps=False, said="only 1 of 900", at=1000.0))
    assert entry.no_help(1000.0) == "only 1 of 900"
    assert entry.no_help(1001.0 + VERDICT_HOLDS_S) is None
    assert Entry(at=0.0, restore=Verdict(helps=True, said="all", at=1000.0)).no_help(1000.0) is None
