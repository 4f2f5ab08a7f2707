"""What differs between two runs of the same tests, and what is accepted of it."""

from __future__ import annotations

import pytest

from tests.support.peers import run, suite
from tests.support.peers.comparison import (
    Accepted,
    Difference,
    Result,
    differences,
    judge,
    read_accepted,
    read_record,
    unsteady,
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
        '{"test": "a", "outcome": "passed", "where": 0, "why": "", "counts": []}',
        '{"test": "a", "outcome": "failed", "where": 9, "why": "AssertionError", "counts": []}',
    )
    for order in (lines, lines[::-1]):
        assert read_record("\n".join(order)) == {"a": failed(9)}


def test_other_numbers_of_tokens_differ() -> None:
    ten, eleven = Result("passed", counts=(10,)), Result("passed", counts=(11,))
    assert differences({"a": ten}, {"a": ten}) == []
    assert differences({"a": ten}, {"a": eleven}) == [Difference("a", ten, eleven)]


def test_what_comes_out_differently_on_the_same_side_is_unsteady() -> None:
    first = {"a": PASSED, "b": failed(3), "c": failed(3)}
    assert unsteady(first, {"a": PASSED, "b": failed(4), "c": failed(3)}) == ["b"]


def test_what_is_accepted_is_grouped_by_its_reason_and_the_rest_is_told() -> None:
    tests = ("f.py::cors[a]", "f.py::cors[b]", "f.py::metrics", "f.py::metrics_too")
    found = [Difference(test, PASSED, failed(1)) for test in tests]
    accepted = [
        Accepted(("f.py::cors*",), "policy"),
        Accepted(("f.py::metrics",), "not served"),
    ]
    verdict = judge(found, accepted, tests)
    assert verdict.accepted == {"policy": found[:2], "not served": [found[2]]}
    assert verdict.others == [found[3]]
    assert not verdict.outdated
    assert not verdict.unknown


def test_a_failure_other_than_the_one_that_is_accepted_is_told() -> None:
    not_found = Difference("f.py::a", PASSED, Result("failed", 1, "assert 404 == 200"))
    broken = Difference("f.py::b", PASSED, Result("failed", 1, "assert 500 == 200"))
    accepted = [Accepted(("f.py::*",), "not served", shows="assert 404")]
    verdict = judge([not_found, broken], accepted, ("f.py::a", "f.py::b"))
    assert verdict.accepted == {"not served": [not_found]}
    assert verdict.others == [broken]


def test_what_is_accepted_and_does_not_differ_is_outdated() -> None:
    found = [Difference("f.py::cors[a]", PASSED, failed(1))]
    accepted = [Accepted(("f.py::cors*", "f.py::gone"), "policy")]
    verdict = judge(found, accepted, ("f.py::cors[a]", "f.py::cors[b]", "f.py::other"))
    assert verdict.outdated == ["f.py::cors[b]"]
    assert verdict.unknown == ["f.py::gone"]


def test_the_committed_list_has_a_reason_for_each_test_and_each_test_once() -> None:
    accepted = read_accepted(run.ACCEPTED.read_text())
    tests = [test for entry in accepted for test in entry.tests]
    assert len(set(tests)) == len(tests)
    assert all(entry.reason and entry.tests for entry in accepted)


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        (
            'assert res["usage"]["prompt_tokens"] == n_prompt',
            'assert counted(res["usage"]["prompt_tokens"])',
        ),
        ("assert u['prompt_tokens'] == 2 * 9", "assert counted(u['prompt_tokens'])"),
        ('assert t["prompt_n"] == 21  # all', 'assert counted(t["prompt_n"])  # all'),
        (
            'assert t["prompt_n"] + t["cache_n"] == n_prompt',
            'assert counted(t["prompt_n"] + t["cache_n"])',
        ),
        ("assert u['prompt_tokens'] == u['total_tokens']", None),
        ('assert t["prompt_n"] == 1', None),
        ('assert t["predicted_n"] == 96', None),
        ('assert body["n_restored"] == n_saved', None),
        ("assert res.status_code == 200", None),
    ],
)
def test_numbers_that_depend_on_a_vocabulary_are_noted(line: str, noted: str | None) -> None:
    assert suite.noting_counts(line) == (noted or line)
