"""TicketQueue: the waiting tickets of one model, in the orders that the scheduler asks for.

There are two orders. By *turn*, which is who gets a free slot: interactive before batch, then
round the clients (each has a turn for what is generated and one for what is only read), then by
arrival. By *age*, which is who decides the next swap.

Turns are numbered in rounds. A ticket's turn is the round that runs when it comes, or the one
after its client's last turn: of a client's hundred tickets one falls into each round, and another
client's single ticket is at most one turn of each client away. A turn never changes, so a ticket
is put in its place once and nothing has to be moved on when others come and go. (This is fair
queueing with start tags, as network schedulers do it.)

A ticket's *size* is the smallest context of its model that holds it, so that the few contexts of
a model, not the many needs, are what has to be searched. Its *start size* is the context that an
engine should have that is started for it: the same, or a larger one.
"""

from __future__ import annotations

import copy
import enum
import heapq
import itertools
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.progress import AnswerProgress

Key = TypeVar("Key", int, tuple[int, int])

# Clients that have nothing waiting are forgotten, the first that came first, when there are more of
# them than this, and than tickets.
_KNOWN_CLIENTS = 64

AGES_AFTER_WINDOWS = 10  # a batch ticket that has waited this many windows is interactive

_versions = itertools.count()


class Counting(enum.Enum):
    """What is to come of a need's count."""

    OPEN = "an engine could say that it is less"
    ASKED = "it is being counted"
    DONE = "nothing: it is exact, or as good as it gets"


class Ticket(msgspec.Struct):
    """A request that waits. `priority` becomes interactive when a batch ticket has aged. `place`:
    its number in the one line of all tickets and ended turns. `start_need`: the need and room to
    grow, or less if there is no such wish. `read_bytes` and `progress` as in TicketArrived.
    `least_need`: what a count may make of the need; `asked_at`: since when it is counted."""

    id: int
    model: str
    need: int
    client: str
    priority: Priority
    arrived_at: float
    size: int = 0
    turn: int = 0
    place: int = 0
    start_need: int = 0
    start_size: int = 0
    read_bytes: int | None = None
    progress: AnswerProgress | None = None
    least_need: int = 0
    counting: Counting = Counting.DONE
    asked_at: float = 0.0

    @property
    def takes_turns_as(self) -> tuple[str, bool]:
        """Between whom turns go round. What a client only has read is in a line of its own: a page
        that sends hundreds of pieces of a file at once is one client with the chats of its users.
        """
        return self.client, self.read_bytes is None


class _Client(msgspec.Struct):
    newest_turn: int
    granted_turn: int
    waiting: int = 0


class _Lane:
    """The tickets of one priority."""

    def __init__(self) -> None:
        # For each size, sorted: (turn, id), and id alone, which is the order of arrival.
        self.by_turn: dict[int, list[tuple[int, int]]] = {}
        self.by_age: dict[int, list[int]] = {}
        self._round = 0
        self._clients: dict[tuple[str, bool], _Client] = {}

    def add(self, ticket: Ticket) -> None:
        who = ticket.takes_turns_as
        client = self._clients.get(who)
        if client is None:
            client = self._clients[who] = _Client(self._round - 1, self._round - 1)
        ticket.turn = client.newest_turn = max(self._round, client.newest_turn + 1)
        client.waiting += 1
        self.put_in(ticket)

    def remove(self, ticket: Ticket, *, granted: bool) -> None:
        client = self._clients[ticket.takes_turns_as]
        client.waiting -= 1
        if granted:
            client.granted_turn = max(client.granted_turn, ticket.turn)
            self._round = max(self._round, ticket.turn)
        if not client.waiting:
            client.newest_turn = (
                client.granted_turn
            )  # turns that it gave up are not held against it
        self.take_out(ticket)
        self._forget_some(sum(map(len, self.by_age.values())))

    def copied(self) -> _Lane:
        lane = _Lane()
        lane.by_turn = {size: [*order] for size, order in self.by_turn.items()}
        lane.by_age = {size: [*order] for size, order in self.by_age.items()}
        lane._round = self._round
        lane._clients = {who: copy.copy(client) for who, client in self._clients.items()}
        return lane

    def put_in(self, ticket: Ticket) -> None:
        """In its place, which it has had before."""
        insort(self.by_turn.setdefault(ticket.size, []), (ticket.turn, ticket.id))
        insort(self.by_age.setdefault(ticket.size, []), ticket.id)

    def take_out(self, ticket: Ticket) -> None:
        _take_out(self.by_turn, ticket.size, (ticket.turn, ticket.id))
        _take_out(self.by_age, ticket.size, ticket.id)

    def _forget_some(self, waiting: int) -> None:
        """Forget half of those that have nothing waiting, when they are many: each is looked at
        once or twice, then."""
        if len(self._clients) > _KNOWN_CLIENTS + 2 * waiting:
            idle = [name for name, client in self._clients.items() if not client.waiting]
            for name in idle[: len(idle) // 2]:
                del self._clients[name]


def _take_out(orders: dict[int, list[Key]], size: int, key: Key) -> None:
    order = orders[size]
    del order[bisect_left(order, key)]
    if not order:
        del orders[size]


class TicketQueue:
    """The tickets of one model. Its caller sets each ticket's `size` and `start_size`.

    `version` is another after each change, and no two queues have the same; `born` is the first.
    `changed` is called at each change.
    """

    def __init__(self, changed: Callable[[], None] | None = None) -> None:
        self.born = self.version = next(_versions)
        self._tell_change = changed
        self._lanes = (_Lane(), _Lane())
        self._tickets: dict[int, Ticket] = {}
        self._wishes: dict[tuple[int, int], int] = {}  # (size, larger start size): how many
        self._uncounted: dict[int, Ticket] = {}  # in order of arrival
        self._held: dict[int, Ticket] = {}  # in no order until they are released

    def copied(self) -> TicketQueue:
        """Another one with the same tickets. To copy these as well takes 7 ms for 500."""
        queue = TicketQueue()
        queue._lanes = (self._lanes[0].copied(), self._lanes[1].copied())
        queue._tickets, queue._wishes = {**self._tickets}, {**self._wishes}
        queue._uncounted, queue._held = {**self._uncounted}, {**self._held}
        return queue

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter([*self._tickets.values()])

    def _changed(self) -> None:
        self.version = next(_versions)
        if self._tell_change is not None:
            self._tell_change()

    def add(self, ticket: Ticket) -> None:
        self._changed()
        self._tickets[ticket.id] = ticket
        self._lanes[ticket.priority].add(ticket)
        self._count_wish(ticket, 1)
        if ticket.counting is not Counting.DONE:
            self._uncounted[ticket.id] = ticket

    def remove(self, ticket: Ticket, *, granted: bool = False) -> None:
        self.release(ticket)
        self._uncounted.pop(ticket.id, None)
        self._changed()
        del self._tickets[ticket.id]
        self._lanes[ticket.priority].remove(ticket, granted=granted)
        self._count_wish(ticket, -1)

    def promote(self, ticket: Ticket) -> None:
        """A batch ticket has waited long enough to be interactive from now on."""
        is_held = ticket.id in self._held
        self.release(ticket)
        self._changed()
        self._lanes[ticket.priority].remove(ticket, granted=False)
        ticket.priority = Priority.INTERACTIVE
        self._lanes[ticket.priority].add(ticket)
        if is_held:
            self.hold(ticket)

    def resize(self, ticket: Ticket, size: int, start_size: int) -> None:
        """Its need, or the model's contexts, turned out to be others. Whose turn it is stays as it
        is."""
        self.hold(ticket)
        ticket.size, ticket.start_size = size, start_size
        self.release(ticket)

    def hold(self, ticket: Ticket) -> None:
        """It waits, but for no engine, until it is released."""
        if ticket.id not in self._held:
            self._changed()
            self._held[ticket.id] = ticket
            self._count_wish(ticket, -1)
            self._lanes[ticket.priority].take_out(ticket)

    def release(self, ticket: Ticket) -> None:
        """Its turn is the one that it had before."""
        if ticket.counting is Counting.DONE:
            self._uncounted.pop(ticket.id, None)
        if self._held.pop(ticket.id, None) is not None:
            self._changed()
            self._count_wish(ticket, 1)
            self._lanes[ticket.priority].put_in(ticket)

    @property
    def has_uncounted(self) -> bool:
        """Whether the need of one may be counted again."""
        return bool(self._uncounted)

    def uncounted(self, after: int) -> list[Ticket]:
        """Those whose need may be counted again and that came after that ticket, the oldest
        first."""
        newest_first = itertools.takewhile(lambda number: number > after, reversed(self._uncounted))
        return [self._uncounted[number] for number in newest_first][::-1]

    def holds(self, priority: Priority) -> bool:
        """Whether a ticket of this priority or a higher one is held."""
        return any(ticket.priority <= priority for ticket in self._held.values())

    def in_line(self) -> list[Ticket]:
        """Those that are not held."""
        return [ticket for ticket in self if ticket.id not in self._held]

    def _count_wish(self, ticket: Ticket, change: int) -> None:
        if ticket.start_size > ticket.size:
            wish = ticket.size, ticket.start_size
            self._wishes[wish] = self._wishes.get(wish, 0) + change
            if not self._wishes[wish]:
                del self._wishes[wish]

    def next_turn(self, context: int, *, interactive_only: bool = False) -> Ticket | None:
        """Whose turn it is among the tickets that the context holds."""
        for lane in self._lanes[: 1 if interactive_only else 2]:
            heads = [order[0] for size, order in lane.by_turn.items() if size <= context]
            if heads:
                return self._tickets[min(heads)[1]]
        return None

    def oldest(self, *, above: int = 0, up_to: int | None = None) -> Ticket | None:
        """The oldest ticket of the highest priority with a size in that range of contexts."""
        for lane in self._lanes:
            heads = [
                order[0]
                for size, order in lane.by_age.items()
                if size > above and (up_to is None or size <= up_to)
            ]
            if heads:
                return self._tickets[min(heads)]
        return None

    def first_come(self, context: int, priority: Priority) -> Ticket | None:
        """The oldest ticket of this priority or a higher one that the context holds."""
        heads = [
            order[0]
            for lane in self._lanes[: priority + 1]
            for size, order in lane.by_age.items()
            if size <= context
        ]
        return self._tickets[min(heads)] if heads else None

    def waits_for(self, context: int, priority: Priority) -> bool:
        """Whether a ticket of this priority or a higher one waits for an engine of this context."""
        return any(size <= context for lane in self._lanes[: priority + 1] for size in lane.by_turn)

    def sizes(self) -> list[int]:
        """The sizes that there are, the largest first."""
        return sorted({size for lane in self._lanes for size in lane.by_turn}, reverse=True)

    def largest_start_size(self, *, above: int, up_to: int) -> int:
        """The largest that the tickets with a size in that range wish for; `up_to` if none wishes
        for a larger one."""
        wishes = [wish for size, wish in self._wishes if above < size <= up_to]
        return max(up_to, *wishes) if wishes else up_to

    def of_size(self, size: int) -> list[Ticket]:
        ids = [number for lane in self._lanes for number in lane.by_age.get(size, ())]
        return [self._tickets[number] for number in ids]

    def in_turn(self) -> list[Ticket]:
        """All of them, in the order of their turns."""
        orders = [heapq.merge(*lane.by_turn.values()) for lane in self._lanes]
        return [self._tickets[number] for order in orders for _, number in order]
