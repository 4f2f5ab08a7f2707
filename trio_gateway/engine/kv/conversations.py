"""Conversations: several of them take turns in an engine's one slot, with `kv_conversations`.

Before each request the one that leaves is saved, and the one that comes back is restored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import trio

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.judge import Judge
from trio_gateway.engine.kv.policy import best_continued, is_continued
from trio_gateway.engine.kv.prompt import Prompt, token_ids
from trio_gateway.engine.kv.slot_files import RESTORE_LIMIT_S, Restored, SlotFiles
from trio_gateway.engine.kv.slot_owners import SlotOwners
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

SLOT = 0  # the only one


class KvMove(NamedTuple):
    """Tokens that were restored for a request, and saved of what made way for it."""

    restored: int = 0
    saved: int = 0

    def and_then(self, other: KvMove) -> KvMove:
        return KvMove(self.restored + other.restored, self.saved + other.saved)


NO_MOVE = KvMove()


class SlotContents(NamedTuple):
    """What the slot holds: a conversation of these tokens, none at all, or None: not known.

    `owner`: whose it is. `is_saved`: the store has it, with all of its tokens.
    """

    ids: Sequence[int] | None
    owner: str = ""
    is_saved: bool = False


EMPTY = SlotContents(())
UNKNOWN = SlotContents(None)


class Conversations:
    """Of one engine with one slot. `contents` is set by others that restore into it."""

    def __init__(
        self,
        owner: KvCarryover,
        key: VariantKey,
        files: SlotFiles,
        judge: Judge,
        stop_s: float,
        owners: SlotOwners | None = None,
    ) -> None:
        self._owner, self._key, self._owners = owner, key, owners
        self._files, self._judge, self._stop_s = files, judge, stop_s
        self.contents = EMPTY

    async def switch(
        self, client: EngineClient, prompt: Prompt, ticket: int, context: int
    ) -> KvMove:
        """Let the prompt's conversation into the slot; the caller has the engine's only lease."""
        move = NO_MOVE
        held = self.contents
        limit_s = self._stop_s + RESTORE_LIMIT_S
        with self._owner.saving(limit_s, self._stop_s / 2) as limit:
            ids = await token_ids(client, prompt)
            owner = "" if self._owners is None else prompt.owner
            goes_on = held.ids is not None and ids is not None and is_continued(held.ids, ids)
            if not goes_on or (held.ids and held.owner != owner):
                saved = restored = 0
                if held.ids is not None and not held.is_saved:
                    saved = await self._files.save(
                        client, SLOT, len(held.ids), self._stop_s, held.owner
                    )
                self.contents = UNKNOWN  # what a restore that breaks off leaves
                if ids is not None:
                    shown = held if held.owner == owner else EMPTY
                    restored = await self._bring_back(client, shown, ids, owner, ticket, context)
                move = KvMove(restored, saved if held.owner == owner else 0)
            self.contents = SlotContents(ids, owner)
        if limit.cancelled_caught:
            log.warning("%s: switching conversations took too long, gave up", self._key)
        return move

    async def _bring_back(
        self,
        client: EngineClient,
        held: SlotContents,
        ids: Sequence[int],
        owner: str,
        ticket: int,
        context: int,
    ) -> int:
        """Restore the conversation that these tokens continue; how many of them it had."""
        found = await self._files.restorable(context)
        if self._owners is not None:
            found = {n: saved for n, saved in found.items() if saved.entry.owner == owner}
        name = best_continued({n: saved.ids for n, saved in found.items()}, ids, held.ids or ())
        if name is None:
            return 0
        entry, its_ids = found[name]
        try:
            restored = await self._files.restore(client, SLOT, entry)
        except trio.Cancelled:
            self._files.acquit()  # the client left
            raise
        await self._files.settle("no answer came in time")
        if restored is not Restored.YES:
            return 0
        if self._owners is not None:
            self._owners.restored(SLOT, owner)
        self._judge.expect(its_ids, entry, {ticket: ids})
        return entry.tokens
