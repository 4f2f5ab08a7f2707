"""The waiting tickets of one model, by turn and by age."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.ticket_queue import Ticket, TicketQueue

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def ticket(
    number: int, client: str = "x", priority: Priority = INTERACTIVE, size: int = 100
) -> Ticket:
    """It arrives at the time that is its number."""
    return Ticket(number, "a", size, client, priority, float(number), size)


def queue(*tickets: Ticket) -> TicketQueue:
    subject = TicketQueue()
    for each in tickets:
        subject.add(each)
    return subject


def turns(subject: TicketQueue, context: int = 400) -> list[int]:
    """The tickets in the order in which they get their slots."""
    order = []
    while (found := subject.next_turn(context)) is not None:
        subject.remove(found, granted=True)
        order.append(found.id)
    return order


def test_one_clients_tickets_have_their_turn_in_the_order_of_arrival() -> None:
    assert turns(queue(*(ticket(n) for n in (1, 2, 3)))) == [1, 2, 3]


def test_of_each_clients_tickets_one_falls_into_each_round() -> None:
    tickets = [(1, "x"), (2, "x"), (3, "x"), (4, "y"), (5, "z"), (6, "y")]
    assert turns(queue(*(ticket(n, client) for n, client in tickets))) == [1, 4, 5, 2, 6, 3]


def test_who_comes_later_joins_the_round_that_runs_and_none_before() -> None:
    subject = queue(*(ticket(n) for n in range(1, 101)))
    for number in range(1, 51):
        found = subject.next_turn(100)
        assert found is not None
        assert found.id == number
        subject.remove(found, granted=True)
    for number in (101, 102, 103):
        subject.add(ticket(number, "late"))
    assert turns(subject)[:6] == [101, 51, 102, 52, 103, 53]


def test_rounds_that_a_client_missed_are_not_made_up_for() -> None:
    subject = queue(ticket(1, "away"), *(ticket(n) for n in range(2, 100)))
    for number in range(1, 51):
        found = subject.next_turn(100)
        assert found is not None
        assert found.id == number
        subject.remove(found, granted=True)
    for number in (101, 102, 103):
        subject.add(ticket(number, "away"))
    assert turns(subject)[:6] == [101, 51, 102, 52, 103, 53]


def test_interactive_tickets_have_their_turn_before_batch_ones() -> None:
    subject = queue(ticket(1, priority=BATCH), ticket(2, "y"), ticket(3))
    assert turns(subject) == [2, 3, 1]


def test_batch_tickets_can_be_left_out() -> None:
    assert queue(ticket(1, priority=BATCH)).next_turn(100, interactive_only=True) is None


def test_a_turn_is_only_for_tickets_that_the_context_holds() -> None:
    subject = queue(ticket(1, size=200), ticket(2, size=100), ticket(3, size=200))
    assert turns(subject, 100) == [2]
    assert turns(subject, 200) == [1, 3]


def test_a_client_that_left_is_where_it_was_before_it_came() -> None:
    gone = [ticket(n, "gone") for n in range(1, 20)]
    subject = queue(*gone)
    for each in gone:
        subject.remove(each)
    for number, client in ((20, "x"), (21, "x"), (22, "gone")):
        subject.add(ticket(number, client))
    assert turns(subject) == [20, 22, 21]


def test_a_granted_turn_is_remembered_while_others_wait() -> None:
    """Else a client that asks for one at a time would always be first."""
    subject = queue(ticket(1, "one"), *(ticket(n) for n in (2, 3, 4)))
    order = []
    for number in range(10, 14):
        found = subject.next_turn(100)
        assert found is not None
        order.append(found.client)
        subject.remove(found, granted=True)
        if found.client == "one":
            subject.add(ticket(number, "one"))
    assert order == ["one", "x", "x", "one"], "in its second round x was there first"


def test_an_aged_batch_ticket_takes_turns_with_the_interactive_ones() -> None:
    aged = ticket(1, "old", BATCH)
    subject = queue(aged, ticket(2), ticket(3))
    subject.promote(aged)
    assert aged.priority is INTERACTIVE
    assert turns(subject) == [1, 2, 3]


def test_the_oldest_is_of_the_highest_priority() -> None:
    subject = queue(ticket(1, priority=BATCH), ticket(2), ticket(3))
    assert subject.oldest() == ticket_of(subject, 2)
    subject.remove(ticket_of(subject, 2))
    subject.remove(ticket_of(subject, 3))
    assert subject.oldest() == ticket_of(subject, 1)


def test_the_oldest_in_a_range_of_sizes() -> None:
    subject = queue(ticket(1, size=100), ticket(2, size=400), ticket(3, size=200))
    assert [
        found.id if (found := subject.oldest(above=above, up_to=up_to)) else None
        for above, up_to in ((0, None), (100, None), (100, 200), (100, 399), (400, None), (0, 99))
    ] == [1, 2, 3, 3, None, None]


def test_whether_anybody_waits_for_a_context() -> None:
    subject = queue(ticket(1, size=200), ticket(2, size=100, priority=BATCH))
    assert [
        subject.waits_for(context, priority)
        for context, priority in (
            (99, BATCH),
            (100, BATCH),
            (100, INTERACTIVE),
            (200, INTERACTIVE),
        )
    ] == [False, True, False, True]


def test_its_sizes_and_the_tickets_of_each() -> None:
    subject = queue(ticket(1, size=200), ticket(2), ticket(3, size=200, priority=BATCH))
    assert subject.sizes() == [200, 100]
    assert [found.id for found in subject.of_size(200)] == [1, 3]
    assert subject.of_size(300) == []


def test_a_ticket_of_another_size_is_found_by_that_one() -> None:
    subject = queue(ticket(1), ticket(2))
    subject.resize(ticket_of(subject, 1), 300, 300)
    assert subject.sizes() == [300, 100]
    assert turns(subject, 100) == [2]
    assert turns(subject, 300) == [1]


def test_in_which_order_they_have_their_turns() -> None:
    subject = queue(ticket(1), ticket(2), ticket(3, "y"), ticket(4, "y", BATCH))
    assert [found.id for found in subject.in_turn()] == [1, 3, 2, 4]


def test_each_change_gives_a_version_that_no_queue_had() -> None:
    one, other = TicketQueue(), TicketQueue()
    versions = [one.version, other.version]
    first = ticket(1, priority=BATCH)
    one.add(first)
    versions.append(one.version)
    one.promote(first)
    versions.append(one.version)
    one.resize(first, 200, 200)
    versions.append(one.version)
    one.remove(first)
    versions.append(one.version)
    assert len(set(versions)) == len(versions)


def test_clients_that_have_nothing_waiting_are_forgotten() -> None:
    subject = queue(ticket(0, "stays", BATCH))
    for number in range(1, 1000):
        visitor = ticket(number, f"visitor {number}")
        subject.add(visitor)
        subject.remove(visitor, granted=True)
    assert sum(len(lane._clients) for lane in subject._lanes) < 100


TICKETS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(Priority), st.sampled_from((100, 200))),
    max_size=30,
)


@given(TICKETS, st.sampled_from((100, 200)))
def test_no_client_has_two_turns_while_another_that_waits_has_none(
    asked: list[tuple[str, Priority, int]], context: int
) -> None:
    """Among the tickets of a priority that were there from the beginning, and if all fit."""
    subject = queue(*(ticket(n, c, p, 100) for n, (c, p, _) in enumerate(asked)))
    granted: list[tuple[Priority, str]] = []
    while (found := subject.next_turn(context)) is not None:
        subject.remove(found, granted=True)
        had = granted.count((found.priority, found.client))
        for other in subject:
            if other.priority is found.priority:
                assert had <= granted.count((other.priority, other.client))
        granted.append((found.priority, found.client))
    assert len(granted) == len(asked)


@given(TICKETS, st.sampled_from((100, 200)))
def test_a_clients_turns_are_in_the_order_of_arrival_within_a_priority(
    asked: list[tuple[str, Priority, int]], context: int
) -> None:
    subject = queue(*(ticket(n, *each) for n, each in enumerate(asked)))
    order = turns(subject, context)
    for group in {(c, p) for c, p, _ in asked}:
        mine = [n for n in order if asked[n][:2] == group]
        assert mine == sorted(mine)
    assert sorted(order) == [n for n, (_, _, size) in enumerate(asked) if size <= context]


def ticket_of(subject: TicketQueue, number: int) -> Ticket:
    return next(each for each in subject if each.id == number)


def wishing(number: int, size: int, start_size: int) -> Ticket:
    each = ticket(number, size=size)
    each.start_size = start_size
    return each


def test_the_largest_start_size_is_that_of_the_tickets_in_the_range() -> None:
    subject = queue(wishing(1, 100, 400), wishing(2, 200, 300), wishing(3, 300, 300))
    assert subject.largest_start_size(above=0, up_to=300) == 400
    assert subject.largest_start_size(above=100, up_to=200) == 300
    assert subject.largest_start_size(above=200, up_to=300) == 300
    subject.resize(ticket_of(subject, 1), 100, 200)
    assert subject.largest_start_size(above=0, up_to=100) == 200


def test_a_start_size_goes_with_the_last_ticket_that_wished_for_it() -> None:
    first, second = wishing(1, 100, 400), wishing(2, 100, 400)
    subject = queue(first, second)
    subject.remove(first, granted=True)
    assert subject.largest_start_size(above=0, up_to=100) == 400
    subject.promote(second)
    subject.remove(second)
    assert subject.largest_start_size(above=0, up_to=100) == 100
