"""SlotOwners: whose conversation each slot of an engine holds, where owners are kept apart. Pure.

An engine finds the beginning of a prompt in whatever its slots hold, and says how much it found. So
another's prompt could be guessed, word by word. Here a request is told its slot, and may reuse what
the slot holds only if that is its owner's. As long as an engine has had one owner, nothing is
told: it chooses best by itself.
"""

from __future__ import annotations

from trio_gateway.engine.clients.facts import Place, Reach

SAMPLE_BYTES = 2**16  # of a body, by which the conversation that it continues is found
CONTINUES_SHARE = 0.5  # of the sample of the one before


class _Slot:
    def __init__(self) -> None:
        self.owners: frozenset[str] = frozenset()  # whose text it may hold
        self.busy = 0
        self.used = 0  # the larger, the later
        self.sample = b""
        self.is_fresh = False  # restored, and not used since


class SlotOwners:
    """Of one engine. `begin` with each of its processes; `place` and `leave` around a request.

    Args:
        is_trusted: the engine holds prompts nowhere but in its slots; otherwise nothing is ever
            reused once there were two owners.
    """

    def __init__(self, *, is_trusted: bool) -> None:
        self._is_trusted = is_trusted
        self._slots: list[_Slot] = []
        self._seen: frozenset[str] = frozenset()
        self._loose = 0  # requests under way whose slots the engine chose
        self._uses = 0

    def begin(self, slots: int | None) -> None:
        """A process with so many slots has started, and holds nothing; None: it does not say."""
        self._slots = [_Slot() for _ in range(slots or 0)]
        self._seen, self._loose = frozenset(), 0

    def restored(self, slot: int, owner: str, body: bytes = b"") -> None:
        """A conversation of this owner was restored into the slot. `body`: of a request that waits
        to go on with it, if there is one."""
        self._arrives(owner)
        if slot < len(self._slots):
            restored = self._slots[slot]
            restored.owners, restored.sample = frozenset({owner}), body[:SAMPLE_BYTES]
            restored.is_fresh = True

    def owner_of(self, slot: int) -> str | None:
        """Whose conversation it holds; None: nobody's, or it is not certain."""
        if len(self._seen) == 1:
            return next(iter(self._seen))
        owners = self._slots[slot].owners if slot < len(self._slots) else frozenset()
        return next(iter(owners)) if len(owners) == 1 else None

    def place(self, owner: str, body: bytes, reach: Reach) -> Place:
        """Where a request of this owner goes; to be given to `leave` once it is over."""
        self._arrives(owner)
        own = frozenset({owner})
        if len(self._seen) == 1:
            self._loose += 1
            return Place()
        can_choose = reach is Reach.SLOT and not self._loose
        chosen = self._choose(own, body) if can_choose else None
        if chosen is not None:
            return self._take(chosen, own, body)
        self._loose += 1
        foreign = [i for i, slot in enumerate(self._slots) if not slot.owners <= own]
        may_reuse = not foreign and self._is_trusted and bool(self._slots)
        wipe: tuple[int, ...] = ()
        if reach is Reach.NOTHING:
            wipe = tuple(i for i in foreign if not self._slots[i].busy)
        for i, slot in enumerate(self._slots):
            slot.owners = own if i in wipe else slot.owners | own
            slot.sample, slot.is_fresh = b"", False
        return Place(None, may_reuse, wipe, is_told=True)

    def leave(self, place: Place) -> None:
        if place.slot is None:
            self._loose = max(self._loose - 1, 0)  # those of an earlier process are not counted
        elif place.slot < len(self._slots):
            slot = self._slots[place.slot]
            slot.busy = max(slot.busy - 1, 0)

    def _arrives(self, owner: str) -> None:
        if owner in self._seen:
            return
        if len(self._seen) == 1:  # whatever was used so far holds the first one's
            for slot in self._slots:
                slot.owners |= self._seen
        self._seen |= {owner}

    def _choose(self, own: frozenset[str], body: bytes) -> int | None:
        """The free slot with the conversation that this body continues, or the one used least."""
        free = [(i, slot) for i, slot in enumerate(self._slots) if not slot.busy]
        if not free:
            return None
        sample = body[:SAMPLE_BYTES]
        for i, slot in sorted(free, key=lambda entry: -entry[1].used):
            if slot.owners == own and _continues(slot.sample, sample):
                return i
        for i, slot in free:
            if slot.owners == own and slot.is_fresh and not slot.sample:
                return i  # which conversation it is, is not known: it may be this one
        return min(free, key=lambda entry: (bool(entry[1].owners), entry[1].used))[0]

    def _take(self, number: int, own: frozenset[str], body: bytes) -> Place:
        slot = self._slots[number]
        self._uses += 1
        may_reuse = slot.owners <= own and self._is_trusted
        slot.owners, slot.used, slot.sample = own, self._uses, body[:SAMPLE_BYTES]
        slot.busy += 1
        slot.is_fresh = False
        return Place(number, may_reuse, is_told=True)


def _continues(before: bytes, now: bytes) -> bool:
    """Whether two bodies begin alike for long enough to be of one conversation."""
    begun = len(before) * CONTINUES_SHARE
    return bool(before) and before[: int(begun) + 1] == now[: int(begun) + 1]
