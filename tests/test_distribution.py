"""How tests are shared out among workers, where one of them crashes."""

from __future__ import annotations

from tests.support.distribution import Distribution


def test_of_a_worker_that_crashed_only_what_it_had_not_done_is_given_out_again() -> None:
    crashed, done, begun = object(), {"a::x": True}, {"b::x": True, "b::y": False}
    subject = Distribution.__new__(Distribution)
    subject.assigned_work, subject.workqueue = {crashed: {"a": done, "b": begun}}, {}
    assert subject.remove_node(crashed) == "b::y"
    assert subject.workqueue == {"b": begun}
