"""What differs between two runs of the same tests, and what is accepted of it."""

from __future__ import annotations

from tests.support.peers import run
from tests.support.peers.comparison import (
    Accepted,
    Difference,
    Result,
    differences,
    judge,
    read_accepted,
    read_record,
)

PASSED, SKIPPED = Result("passed"), Result("skipped")


def failed(where: int) -> Result:
    return Result("failed", where, "AssertionError")


def test_the_same_outcome_in_the_same_place_is_no_difference() -> None:
    results = {"a": PASSED, "b": failed(3), "c": SKIPPED}
    told_otherwise = {**results, "b": Result("failed", 3, "assert 1 == 2")}
    assert differences(results, told_otherwise) == []


def test_a_test_that_fails_elsewhere_differs() -> None:
    assert differences({"a": failed(3)}, {"a": failed(7)}) == [
        Difference("a", failed(3), failed(7))
    ]


def test_a_test_that_one_side_did_not_come_to_differs() -> None:
    missing = Result("missing")
    found = differences({"a": PASSED}, {"b": PASSED})
    assert found == [Difference("a", PASSED, missing), Difference("b", missing, PASSED)]


def test_a_failed_teardown_counts_over_a_passed_call() -> None:
    lines = (
        '{"test": "a", "outcome": "passed", "where": 0, "why": ""}',
        '{"test": "a", "outcome": "failed", "where": 9, "why": "AssertionError"}',
    )
    for order in (lines, lines[::-1]):
        assert read_record("\n".join(order)) == {"a": failed(9)}


def test_what_is_accepted_is_grouped_by_its_reason_and_the_rest_is_told() -> None:
    tests = ("f.py::cors[a]", "f.py::cors[b]", "f.py::metrics", "f.py::metrics_too")
    found = [Difference(test, PASSED, failed(1)) for test in tests]
    accepted = [
        Accepted(("f.py::cors*",), "policy"),
        Accepted(("f.py::metrics", "f.py::gone"), "not served"),
    ]
    verdict = judge(found, accepted)
    assert verdict.accepted == {"policy": found[:2], "not served": [found[2]]}
    assert verdict.others == [found[3]]
    assert verdict.outdated == ["f.py::gone"]


def test_the_committed_list_has_a_reason_for_each_test_and_each_test_once() -> None:
    accepted = read_accepted(run.ACCEPTED.read_text())
    tests = [test for entry in accepted for test in entry.tests]
    assert len(set(tests)) == len(tests)
    assert all(entry.reason and entry.tests for entry in accepted)
