"""Which slot a request gets, and that nobody finds another's text in it."""

from __future__ import annotations

import random

import pytest

from trio_gateway.engine.clients.facts import Place, Reach
from trio_gateway.engine.kv.slot_owners import SlotOwners

FREE = Place()


def body(text: str) -> bytes:
    return f'{{"messages":"{text}'.encode() * 20


A, A_AGAIN, A_OTHER, B = (body(name) for name in ("the first", "the first", "another", "of b"))


@pytest.fixture
def one() -> SlotOwners:
    owners = SlotOwners(is_trusted=True)
    owners.begin(1)
    return owners


@pytest.fixture
def three() -> SlotOwners:
    owners = SlotOwners(is_trusted=True)
    owners.begin(3)
    return owners


def whole(owners: SlotOwners, owner: str, text: bytes, reach: Reach = Reach.SLOT) -> Place:
    """A request and its end."""
    place = owners.place(owner, text, reach)
    owners.leave(place)
    return place


def test_one_owner_is_told_nothing(three: SlotOwners) -> None:
    for text in (A, A_OTHER, A_AGAIN):
        assert whole(three, "a", text) == FREE
        assert whole(three, "a", text, Reach.NOTHING) == FREE
    assert three.owner_of(2) == "a"


def test_in_one_slot_only_the_last_owner_may_reuse(one: SlotOwners) -> None:
    whole(one, "a", A)
    assert whole(one, "b", A) == Place(0, False, is_told=True)
    assert whole(one, "b", A) == Place(0, True, is_told=True)
    assert whole(one, "a", A) == Place(0, False, is_told=True)
    assert one.owner_of(0) == "a"


def test_each_owner_comes_back_to_its_own_slot(three: SlotOwners) -> None:
    whole(three, "a", A)  # wherever the engine put it
    b = whole(three, "b", B)
    assert not b.may_reuse
    a = whole(three, "a", A)
    assert a.slot != b.slot
    assert whole(three, "b", B + b" next") == b._replace(may_reuse=True)
    assert whole(three, "a", A + b" next") == a._replace(may_reuse=True)


def test_an_owner_s_conversations_are_told_apart(three: SlotOwners) -> None:
    whole(three, "b", B)
    first, second = whole(three, "a", A), whole(three, "a", A_OTHER)
    assert first.slot != second.slot
    assert whole(three, "a", A_AGAIN).slot == first.slot
    assert whole(three, "a", A_OTHER).slot == second.slot


def test_a_slot_at_work_is_not_given_to_another_request(three: SlotOwners) -> None:
    whole(three, "b", B)
    places = [three.place("a", A, Reach.SLOT) for _ in range(3)]
    assert sorted(place.slot or 0 for place in places) == [0, 1, 2]
    beyond = three.place("b", B, Reach.SLOT)
    assert beyond == Place(None, False, is_told=True)


def test_what_cannot_be_told_finds_nothing_of_others(three: SlotOwners) -> None:
    whole(three, "a", A)
    place = whole(three, "b", B, Reach.NOTHING)
    assert (place.slot, place.wipe) == (None, (0, 1, 2))
    assert whole(three, "b", B, Reach.NOTHING).wipe == ()
    assert not whole(three, "a", A).may_reuse  # b's may be anywhere
    assert whole(three, "a", A).may_reuse


def test_an_answer_in_several_slots_leaves_its_text_in_all(three: SlotOwners) -> None:
    whole(three, "a", A)
    whole(three, "b", B, Reach.REUSE)
    assert three.owner_of(0) is None
    assert not whole(three, "a", A).may_reuse


def test_while_the_engine_chooses_for_one_it_chooses_for_all(three: SlotOwners) -> None:
    first = three.place("a", A, Reach.SLOT)
    assert first == FREE
    assert three.place("b", B, Reach.SLOT) == Place(None, False, is_told=True)


def test_a_new_process_holds_nothing_and_what_is_restored_is_its_owner_s(three: SlotOwners) -> None:
    whole(three, "a", A)
    whole(three, "b", B)
    three.begin(2)
    three.restored(0, "a")
    three.restored(1, "b")
    assert (three.owner_of(0), three.owner_of(1)) == ("a", "b")
    assert whole(three, "b", B) == Place(1, True, is_told=True)
    three.leave(Place(9))  # of the process before


def test_a_conversation_that_was_restored_is_found_by_the_request_that_waited_for_it(
    three: SlotOwners,
) -> None:
    three.restored(0, "a")
    three.restored(1, "a", A)
    three.restored(2, "b", B)
    assert whole(three, "a", A) == Place(1, True, is_told=True)
    assert whole(three, "a", A_OTHER) == Place(0, True, is_told=True)
    assert whole(three, "b", B) == Place(2, True, is_told=True)


@pytest.mark.parametrize("slots", [None, 2])
def test_where_prompts_may_be_kept_elsewhere_nothing_is_reused_by_two(slots: int | None) -> None:
    owners = SlotOwners(is_trusted=slots is None)
    owners.begin(slots)
    assert whole(owners, "a", A).may_reuse
    assert not whole(owners, "b", B).may_reuse
    for _ in range(3):
        assert not whole(owners, "b", B).may_reuse


class Engine:
    """Slots with the names of those whose text they hold, used as an engine would."""

    def __init__(self, slots: int, chance: random.Random) -> None:
        self.held: list[set[str]] = [set() for _ in range(slots)]
        self.busy = [False] * slots
        self.chance = chance

    def take(self, place: Place, owner: str, reach: Reach) -> list[int]:
        """The slots that it takes; nobody else's text may be found in one."""
        for slot in place.wipe:
            assert not self.busy[slot]
            self.held[slot] = set()
        idle = [i for i, busy in enumerate(self.busy) if not busy]
        taken = [place.slot] if place.slot is not None else [self.chance.choice(idle)]
        if reach is Reach.REUSE:
            taken = self.chance.sample(idle, self.chance.randint(1, len(idle)))
        for slot in taken:
            assert not self.busy[slot]
            if place.may_reuse or reach is Reach.NOTHING:
                assert self.held[slot] <= {owner}
            self.held[slot] = {owner}
            self.busy[slot] = True
        return taken


@pytest.mark.parametrize("seed", range(40))
def test_nobody_ever_finds_another_s_text(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 4)
    owners, engine = SlotOwners(is_trusted=True), Engine(count, chance)
    owners.begin(count)
    under_way: list[tuple[Place, list[int]]] = []
    for _ in range(300):
        if under_way and (
            not all(map(bool, [not b for b in engine.busy])) or chance.random() < 0.5
        ):
            place, slots = under_way.pop(chance.randrange(len(under_way)))
            for slot in slots:
                engine.busy[slot] = False
            owners.leave(place)
            continue
        owner, reach = chance.choice("abc"), chance.choice([*Reach])
        place = owners.place(owner, chance.choice([A, B, A_OTHER]), reach)
        under_way.append((place, engine.take(place, owner, reach)))
