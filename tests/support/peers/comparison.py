"""What differs between two runs of the same tests, and what of that is accepted. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

LONGEST = 300  # characters of what came of a test, for a person


class Result(msgspec.Struct, frozen=True):
    """What came of a test. `where`: the line of it where it failed, 0 if none did. `counts`: the
    numbers of tokens that it was told."""

    outcome: str  # as pytest has it: passed, failed, skipped
    where: int = 0
    why: str = ""
    counts: tuple[int, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    def is_like(self, other: Result) -> bool:
        mine, others = (self.outcome, self.where), (other.outcome, other.where)
        return mine == others and self.counts == other.counts


class Difference(msgspec.Struct, frozen=True):
    test: str
    straight: Result
    gateway: Result

    @property
    def sentence(self) -> str:
        sides = (("straight: ", self.straight), ("gateway:  ", self.gateway))
        return "\n    ".join((self.test, *(side + _said(result) for side, result in sides)))


class Accepted(msgspec.Struct, frozen=True):
    """Tests that may differ. Each is a name, or the beginning of one with `*` behind it. `shows`:
    what a failure through the gateway says then, as any other is not accepted."""

    tests: tuple[str, ...]
    reason: str
    shows: str = ""


class Verdict(msgspec.Struct, frozen=True):
    accepted: Mapping[str, Sequence[Difference]]  # by reason
    others: Sequence[Difference]
    outdated: Sequence[str]  # tests on the list that do not differ
    unknown: Sequence[str]  # what is on the list for a test that did not run


def read_record(text: str) -> dict[str, Result]:
    """Of a test with several lines, such as one whose teardown failed too, the worst one counts."""
    results: dict[str, Result] = {}
    for line in map(json.loads, text.splitlines()):
        test, result = line.pop("test"), msgspec.convert(line, Result)
        if test not in results or results[test].passed:
            results[test] = result
    return results


def read_accepted(text: str) -> list[Accepted]:
    return msgspec.convert(tomllib.loads(text)["accepted"], list[Accepted])


def differences(straight: Mapping[str, Result], gateway: Mapping[str, Result]) -> list[Difference]:
    """Tests with another outcome, that failed in another place, or with other numbers of tokens.
    One that is missing did not come to its end."""
    missing = Result("missing")
    pairs = {
        test: (straight.get(test, missing), gateway.get(test, missing))
        for test in sorted({*straight, *gateway})
    }
    return [
        Difference(test, ours, theirs)
        for test, (ours, theirs) in pairs.items()
        if not ours.is_like(theirs)
    ]


def unsteady(first: Mapping[str, Result], again: Mapping[str, Result]) -> list[str]:
    """Tests that came out differently on the same side."""
    return [test for test, result in again.items() if not result.is_like(first.get(test, result))]


def judge(
    found: Iterable[Difference], accepted: Sequence[Accepted], ran: Collection[str]
) -> Verdict:
    """`ran`: all tests, those that do not differ among them."""
    by_reason: dict[str, list[Difference]] = {}
    others: list[Difference] = []
    agree = {*ran}
    for difference in found:
        agree.discard(difference.test)
        entry = next((entry for entry in accepted if _accepts(entry, difference)), None)
        if entry is None:
            others.append(difference)
        else:
            by_reason.setdefault(entry.reason, []).append(difference)
    listed = [pattern for entry in accepted for pattern in entry.tests]
    outdated = [test for test in sorted(agree) if any(_matches(p, test) for p in listed)]
    unknown = [pattern for pattern in listed if not any(_matches(pattern, test) for test in ran)]
    return Verdict(by_reason, others, outdated, unknown)


def _accepts(entry: Accepted, difference: Difference) -> bool:
    listed = any(_matches(pattern, difference.test) for pattern in entry.tests)
    return listed and entry.shows in difference.gateway.why


def _matches(pattern: str, test: str) -> bool:
    return test.startswith(pattern[:-1]) if pattern.endswith("*") else test == pattern


def _said(result: Result) -> str:
    where = f" in line {result.where}" if result.where else ""
    return f"{result.outcome}{where}{f': {result.why}' if result.why else ''}"[:LONGEST]
