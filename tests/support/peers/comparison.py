"""What differs between two runs of the same tests, and what of that is accepted. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

LONGEST = 300  # characters of what came of a test, for a person


class Result(msgspec.Struct, frozen=True):
    """What came of a test. `where`: the line of it where it failed, 0 if none did."""

    outcome: str  # as pytest has it: passed, failed, skipped
    where: int = 0
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


class Difference(msgspec.Struct, frozen=True):
    test: str
    straight: Result
    gateway: Result

    @property
    def sentence(self) -> str:
        sides = (("straight: ", self.straight), ("gateway:  ", self.gateway))
        return "\n    ".join((self.test, *(side + _said(result) for side, result in sides)))


class Accepted(msgspec.Struct, frozen=True):
    """Tests that may differ. Each is a name, or the beginning of one with `*` behind it."""

    tests: tuple[str, ...]
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    accepted: Mapping[str, Sequence[Difference]]  # by reason
    others: Sequence[Difference]
    outdated: Sequence[str]  # what is on the list and differs no more


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
    """Tests with another outcome, or that failed in another place. One that is missing did not come
    to its end."""
    missing = Result("missing")
    pairs = {
        test: (straight.get(test, missing), gateway.get(test, missing))
        for test in sorted({*straight, *gateway})
    }
    return [
        Difference(test, ours, theirs)
        for test, (ours, theirs) in pairs.items()
        if (ours.outcome, ours.where) != (theirs.outcome, theirs.where)
    ]


def judge(found: Iterable[Difference], accepted: Sequence[Accepted]) -> Verdict:
    by_reason: dict[str, list[Difference]] = {}
    others: list[Difference] = []
    used: set[str] = set()
    for difference in found:
        for entry in accepted:
            hits = [pattern for pattern in entry.tests if _matches(pattern, difference.test)]
            if hits:
                used.update(hits)
                by_reason.setdefault(entry.reason, []).append(difference)
                break
        else:
            others.append(difference)
    listed = [pattern for entry in accepted for pattern in entry.tests]
    return Verdict(by_reason, others, [pattern for pattern in listed if pattern not in used])


def _matches(pattern: str, test: str) -> bool:
    return test.startswith(pattern[:-1]) if pattern.endswith("*") else test == pattern


def _said(result: Result) -> str:
    where = f" in line {result.where}" if result.where else ""
    return f"{result.outcome}{where}{f': {result.why}' if result.why else ''}"[:LONGEST]
