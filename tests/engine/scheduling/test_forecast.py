"""What loads and requests are expected to take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from tests.support.scheduler_tables import variant
from trio_gateway.engine.scheduling.forecast import Forecast
from trio_gateway.engine.scheduling.progress import AnswerProgress

SMALL, LARGE = variant("a:small", load_time_s=7), variant("a:large", load_time_s=9)


def test_before_the_first_load_the_configurations_guess_holds() -> None:
    assert Forecast().load_s(SMALL) == 7


def test_the_first_load_replaces_the_guess() -> None:
    subject = Forecast()
    subject.load_took(SMALL.key, 3)
    assert subject.load_s(SMALL) == 3


def test_each_variant_has_its_own_load_time() -> None:
    subject = Forecast()
    subject.load_took(SMALL.key, 3)
    assert subject.load_s(LARGE) == 9


def test_later_loads_move_the_mean_by_three_tenths_of_the_difference() -> None:
    subject = Forecast()
    for seconds in (10, 20, 3):
        subject.load_took(SMALL.key, seconds)
    assert subject.load_s(SMALL) == pytest.approx(10 * 0.7 * 0.7 + 20 * 0.3 * 0.7 + 3 * 0.3)


def test_what_was_never_measured_is_not_known() -> None:
    subject = Forecast()
    answer = AnswerProgress(100, 1000, is_seen=True)
    assert subject.lease_s("a") is None
    assert subject.reading_s("a", 100) is None
    assert subject.answer_s("a", answer, 4096) is None
    assert subject.answer_left_s("a", answer, 4096, 0, 5) is None
    assert subject.known_load_s(variant("a", load_time_s=7)) == 7
    unknown = msgspec.structs.replace(SMALL, load_time_known=False)
    assert subject.known_load_s(unknown) is None
    subject.load_took(SMALL.key, 3)
    assert subject.known_load_s(unknown) == 3


def test_leases_are_known_by_model() -> None:
    subject = Forecast()
    subject.lease_took("a", 4)
    subject.lease_took("a", 6)
    assert subject.lease_s("a") == pytest.approx(4.6)
    assert subject.lease_s("b") is None


def test_reading_is_expected_to_take_what_its_bytes_took_the_newest_most() -> None:
    subject = Forecast()
    assert subject.reading_s("a", 1000) is None
    subject.reading_took("a", 1000, 2)
    assert subject.reading_s("a", 500) == pytest.approx(1)
    for _ in range(20):
        subject.reading_took("a", 1000, 4)
    assert subject.reading_s("a", 1000) == pytest.approx(4, rel=0.01)


# -- answers: 10 s a thousand tokens of the prompt, 100 tokens a second ---------------------------


def streamed(
    *, limit: int | None = 1000, tokens: int = 0, begun_at: float | None = None
) -> AnswerProgress:
    answer = AnswerProgress(1000, limit, is_seen=True)
    answer.begun_at, answer.said = begun_at, tokens
    return answer


def whole(limit: int | None = 1000) -> AnswerProgress:
    return AnswerProgress(1000, limit, is_seen=False)


def measured(*, ended: Sequence[int] = ()) -> Forecast:
    """`ended`: tokens of answers that ended by themselves."""
    subject = Forecast()
    for tokens in (1000, *ended):
        answer = streamed(tokens=tokens, begun_at=10.0)
        answer.is_complete = True
        subject.answer_took("a", answer, 10_000, 0.0, 10.0 + tokens / 100)
    return subject


CONTEXT = 4000
SITUATIONS = [
    # An answer, how long ago its engine was asked, and what it still takes.
    ("reads its prompt", streamed(), 4.0, 6 + 10),
    ("reads its prompt for longer than expected", streamed(), 60.0, 10),
    ("has begun", streamed(tokens=1, begun_at=10.0), 10.0, 9.99),
    ("is in its middle", streamed(tokens=400, begun_at=10.0), 14.0, 6),
    ("is in its middle and slower than others", streamed(tokens=400, begun_at=10.0), 50.0, 60),
    ("is at its limit", streamed(tokens=1000, begun_at=10.0), 20.0, 0),
    ("goes to the end of its context", streamed(limit=None), 0.0, 10 + 30),
    ("has a limit that its context cannot hold", streamed(limit=90_000), 0.0, 10 + 30),
    ("is not seen", whole(), 4.0, 16),
    ("is not seen and overdue", whole(), 21.0, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "since_s", "left_s"), [s[1:] for s in SITUATIONS], ids=[s[0] for s in SITUATIONS]
)
def test_what_an_answer_still_takes(
    answer: AnswerProgress, since_s: float, left_s: float | None
) -> None:
    found = measured().answer_left_s("a", answer, CONTEXT, 0.0, since_s)
    assert found == (left_s if left_s is None else pytest.approx(left_s))


def test_it_counts_down_while_an_answer_comes() -> None:
    subject, answer = measured(), streamed(limit=3000)
    found = [subject.answer_left_s("a", answer, CONTEXT, 0.0, 5.0)]
    answer.begin(10.0)
    for second in (1, 5, 10, 20, 29):
        answer.said = 100 * second
        found.append(subject.answer_left_s("a", answer, CONTEXT, 0.0, 10.0 + second))
    assert found == [pytest.approx(left) for left in (35, 29, 25, 20, 10, 1)]


def test_an_answers_own_speed_is_enough() -> None:
    answer = streamed(tokens=50, begun_at=10.0)
    assert Forecast().answer_left_s("a", answer, CONTEXT, 0.0, 15.0) == pytest.approx(95)


def test_answers_are_expected_to_be_as_long_as_others_that_ended_by_themselves() -> None:
    ended = [200, 300] * 4
    subject = measured(ended=ended)
    assert subject.answer_s("a", whole(), CONTEXT) == pytest.approx(10 + 2.5)
    assert subject.answer_s("a", whole(limit=100), CONTEXT) == pytest.approx(10 + 1)
    longer = streamed(tokens=250, begun_at=10.0)  # only four were: so few tell nothing
    assert subject.answer_left_s("a", longer, CONTEXT, 0.0, 12.5) == pytest.approx(7.5)


def test_answers_that_ended_at_their_limit_tell_nothing_about_others() -> None:
    subject = Forecast()
    for _ in range(20):
        answer = streamed(limit=10, tokens=10, begun_at=0.0)
        answer.is_complete = True
        subject.answer_took("a", answer, CONTEXT, 0.0, 0.1)
    assert subject.answer_s("a", whole(), CONTEXT) == pytest.approx(10)
