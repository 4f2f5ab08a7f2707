"""EngineKv: the KV caches of one engine's slots, saved before its stop, restored after its start.

Nothing here may cost a request or a swap: each step has a time limit, and whatever goes wrong is
logged, counted, and left. Never trusted: a file is checked before an engine sees it, an engine's
`n_restored` is held against what was saved, and the first answer that a restore should have helped
shows whether it did.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts, SlotRefused, SlotUnanswered
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.file import KvEntry, shared_prefix
from trio_gateway.engine.kv.fingerprint import Fingerprint, fingerprint_of
from trio_gateway.engine.kv.policy import (
    LEAST_TOKENS,
    Candidate,
    has_helped,
    in_order,
    is_continued,
    is_wanted,
)
from trio_gateway.engine.kv.store import KvLendRefused, KvSaveRefused, KvStore
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

RESTORE_LIMIT_S = 30.0  # all of it, from the first question on
SLOW_DISK = 4.0  # times longer than measured
CONTINUES_SHARE = 0.9
UNWANTED_LIMIT_S = 1.0  # of conversations that no waiting request continues
TOKENIZE_LIMIT_S = 5.0  # one request's prompt
SLOTS_LIMIT_S = 5.0
_NOT_CACHED = b'"cache_prompt"'  # with whatever value; the default is what carry-over is for
SLOT = 0  # the only one, with `kv_conversations`
# So many waiting requests are looked at to choose among saved conversations.
PROMPTS_MAX = 4


class Prompt(NamedTuple):
    """A request as an engine gets it: what its conversation is told by."""

    endpoint: str
    body: bytes


class KvMove(NamedTuple):
    """Tokens that were restored for a request, and saved of what made way for it."""

    restored: int = 0
    saved: int = 0


class EngineKv:
    """One engine's. `launch_args` first, then `restore`, then `save`.

    Args:
        waiting: the requests that wait for the engine, by ticket.
    """

    def __init__(
        self,
        owner: KvCarryover,
        key: VariantKey,
        model: ModelConfig,
        variant: VariantConfig,
        kind: EngineKind,
        waiting: Callable[[], Mapping[int, Prompt]],
    ) -> None:
        self._owner, self._key, self._model, self._variant = owner, key, model, variant
        self._kind, self._waiting = kind, waiting
        self._folder: Path | None = None  # where this engine keeps slots
        self._fingerprint: Fingerprint | None = None
        self._context, self._places, self._slots = 0, 1, 1
        self._shared_tokens: int | None = None
        self._being_restored: KvEntry | None = None
        self._expected: dict[int, int] = {}  # by ticket: tokens that a restore should spare it
        # Of the one slot, with `kv_conversations`; None: not known.
        self._held: Sequence[int] | None = ()
        self._is_held_saved = False
        self.restored_tokens = 0
        self.saved_tokens = 0

    def launch_args(self, args: Sequence[str]) -> list[str]:
        """The arguments, with a folder for slots if they name none and the engine can have one."""
        own = self._kind.slot_folder(args)
        if own is not None:
            self._folder = self._variant.workdir / own
            return list(args)
        folder = self._owner.folder
        if folder is None or not _is_there(folder):
            return list(args)
        added = self._kind.slot_folder_args(self._variant.binary, str(folder))
        self._folder = folder if added else None
        return [*args, *added]

    @property
    def _works(self) -> bool:
        return self._folder is not None and self._fingerprint is not None

    # -- after a start -------------------------------------------------------------------------

    async def restore(
        self,
        client: EngineClient,
        facts: EngineFacts,
        context: int,
        places: int,
        shared_tokens: int | None = None,
    ) -> None:
        """Restore what the waiting requests continue, and what was used last."""
        self._context, self._places, self._shared_tokens = context, places, shared_tokens
        self._slots = facts.places or places
        if self._folder is None or self._owner.folder is None:
            return
        if (why := self._owner.unhelpful.get(self._model.name)) is not None:
            log.info("%s: nothing is restored: %s", self._key, why)
            return
        self._fingerprint = await trio.to_thread.run_sync(fingerprint_of, self._variant, facts)
        if self._fingerprint is None:
            log.info("%s: no KV carry-over, its model's file cannot be read", self._key)
            return
        with trio.move_on_after(RESTORE_LIMIT_S) as limit:
            try:
                await self._restore(client)
            except Exception:  # a bug of ours must cost the cache, not the start
                log.exception("%s: a bug in the gateway; please report it", self._key)
        if limit.cancelled_caught:
            log.warning("%s: restoring took over %g s, left at that", self._key, RESTORE_LIMIT_S)

    async def _restore(self, client: EngineClient) -> None:
        found = await self._owner.with_store(self._candidates) or {}
        if not found:
            return
        prompts = {
            ticket: ids
            for ticket, prompt in [*self._waiting().items()][:PROMPTS_MAX]
            if (ids := await self._ids_of(client, prompt)) is not None
        }
        candidates = [Candidate(entry.name, ids) for entry, ids in found.values()]
        slots = await client.read_slots(SLOTS_LIMIT_S)
        free = [s.id for s in slots] if slots else [*range(self._places)]
        spare_s = UNWANTED_LIMIT_S
        for name in in_order(candidates, [*prompts.values()]):
            entry, ids = found[name]
            total = self.restored_tokens + entry.tokens
            if self._shared_tokens is not None and total > self._shared_tokens:
                continue  # the slots share one cache, and that would be too full
            if not free:
                return
            if not is_wanted(ids, [*prompts.values()]):
                spare_s -= self._owner.costs(self._model.name).restore_s(entry.size_bytes)
                if spare_s < 0:
                    continue  # nobody waits for it, but all that wait would wait for this
            if not await self._restore_one(client, free[0], entry):
                if self.in_doubt:
                    return
                continue
            del free[0]
            self.restored_tokens = total
            self._held, self._is_held_saved = ids, True
            self._expect(entry, ids or (), prompts)

    def _expect(
        self, entry: KvEntry, ids: Sequence[int], prompts: Mapping[int, Sequence[int]]
    ) -> None:
        """Judge the restore by the answer to the prompt that goes on with nearly all of it: what
        only begins alike may be read again for good reasons."""
        for ticket, prompt in prompts.items():
            shared = shared_prefix(ids, prompt)
            if shared >= CONTINUES_SHARE * entry.tokens:
                self._expected = {ticket: shared}
                return

    def _candidates(self, store: KvStore) -> dict[str, tuple[KvEntry, Sequence[int] | None]]:
        """By name, what this engine can restore; the log says why not the others."""
        assert self._fingerprint is not None
        encoded = self._fingerprint.encode()
        entries = store.candidates(self._model.name, encoded, self._context)
        for entry in store.also_of(self._model.name):
            if entry not in entries:
                different = self._fingerprint.differs_in(entry.fingerprint)
                why = (
                    f"another {', '.join(different)}"
                    if different
                    else f"{entry.tokens} tokens do not fit into {self._context}"
                )
                log.info("%s: a saved conversation is not restored: %s", self._key, why)
        return {e.name: (e, store.ids_of(e)) for e in entries}

    async def _restore_one(self, client: EngineClient, slot: int, entry: KvEntry) -> bool:
        folder = self._folder
        assert folder is not None
        self._being_restored = entry
        lent: Path | None = None
        try:
            lent = await self._owner.with_store(lambda store: store.lend(entry, folder))
            if lent is None:  # the store was closed
                self._being_restored = None
                return False
            read = await client.restore_slot(slot, lent.name, RESTORE_LIMIT_S)
            if read.tokens != entry.tokens:
                await client.erase_slot(slot, TOKENIZE_LIMIT_S)
                raise SlotRefused(f"the engine restored {read.tokens} of {entry.tokens} tokens")
        except SlotUnanswered:
            return False  # `in_doubt` from now on
        except (KvLendRefused, SlotRefused) as error:
            await self._give_up(entry, str(error))
            return False
        finally:
            if lent is not None:
                # Shielded because only this removes what another folder was lent: a moment's work.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._owner.with_store(lambda store: store.give_back(lent))
        self._being_restored = None
        self._owner.costs(self._model.name).note_restore(read.size_bytes, read.took_ms)
        self._owner.counts.restores += 1
        self._owner.counts.restored_tokens += entry.tokens
        await self._owner.with_store(lambda store: store.used(entry))
        log.info(
            "%s: restored %d tokens into slot %d in %.0f ms",
            self._key, entry.tokens, slot, read.took_ms,
        )  # fmt: skip
        return True

    async def _give_up(self, entry: KvEntry, why: str) -> None:
        await self._owner.with_store(lambda store: store.remove(entry))
        self._being_restored = None
        self._owner.counts.failed_restores += 1
        log.warning("%s: %d saved tokens are dropped: %s", self._key, entry.tokens, why)

    @property
    def in_doubt(self) -> bool:
        """A restore was begun, and nobody knows how it ended."""
        return self._being_restored is not None

    async def settle(self, *, ended: bool) -> None:
        """Drop the file of a restore that is in doubt, whether or not it `ended` the engine."""
        if ended:
            self.restored_tokens, self._held, self._expected = 0, (), {}
        if (entry := self._being_restored) is not None:
            why = "the engine ended while it restored them" if ended else "no answer came in time"
            await self._give_up(entry, why)

    # -- before a stop -------------------------------------------------------------------------

    async def save(self, client: EngineClient) -> None:
        """Save each slot that holds a conversation worth it."""
        self.saved_tokens = 0
        if not self._works or not self._owner.saves_now:
            return
        stop_s = self._variant.timeouts.stop_s
        # At a shutdown half of what the whole stop may take, so that a hanging engine is still
        # asked to end in time; before a swap long enough for a slow disk.
        limit_s = stop_s / 2
        if not self._owner.is_closing:
            expected_s = self._owner.costs(self._model.name).carry_s(self._context) or 0.0
            limit_s = max(stop_s, SLOW_DISK * expected_s)
        with self._owner.saving(limit_s, stop_s / 2) as limit:
            slots = await client.read_slots(SLOTS_LIMIT_S)
            if slots is None:
                log.info("%s: nothing saved, the engine does not show its slots", self._key)
            for slot in slots or ():
                if slot.tokens is not None:  # else nothing was asked of it since its start
                    self.saved_tokens += await self._save_one(client, slot.id, slot.tokens, limit_s)
        if limit.cancelled_caught:
            self._owner.counts.failed_saves += 1
            log.warning(
                "%s: saving took over %g s, left at that (engine_stop_timeout)", self._key, limit_s
            )

    async def _save_one(
        self, client: EngineClient, slot: int, held_tokens: int, limit_s: float
    ) -> int:
        """The tokens that were saved."""
        model, folder = self._model.name, self._folder
        if (why := self._owner.unhelpful.get(model)) is not None:
            log.info("%s: slot %d is not saved: %s", self._key, slot, why)
            return 0
        costs = self._owner.costs(model)
        worth = costs.worth(held_tokens)
        if not worth.is_worth:
            log.info("%s: slot %d is not worth saving: %s", self._key, slot, worth.reason)
            return 0
        name = self._owner.new_name()
        if name is None or folder is None:
            return 0
        try:
            written = await client.save_slot(slot, name, limit_s)
            kept = await self._keep(folder / name, written.tokens, written.size_bytes)
        except (SlotRefused, KvSaveRefused) as error:
            self._owner.counts.failed_saves += 1
            log.warning("%s: slot %d could not be saved: %s", self._key, slot, error)
            return 0
        finally:
            self._owner.discard(folder / name)
        if not kept:
            return 0
        costs.note_save(written.tokens, written.size_bytes, written.took_ms)
        self._owner.counts.saves += 1
        self._owner.counts.saved_tokens += written.tokens
        log.info(
            "%s: saved %d tokens of slot %d, %.1f MB in %.0f ms (%s)",
            self._key, written.tokens, slot, written.size_bytes / 1e6, written.took_ms,
            worth.reason,
        )  # fmt: skip
        return written.tokens

    async def _keep(self, path: Path, tokens: int, size_bytes: int) -> bool:
        """Hand a written file to the store. Raises KvSaveRefused."""
        if tokens < LEAST_TOKENS:
            return False
        assert self._fingerprint is not None
        model, encoded = self._model.name, self._fingerprint.encode()
        conversations = self._model.kv_conversations

        def keep(store: KvStore) -> bool:
            store.commit(
                path, model=model, fingerprint=encoded, tokens=tokens, size_bytes=size_bytes
            )
            if conversations:
                store.keep_newest(model, conversations)
            return True

        return await self._owner.with_store(keep) or False

    # -- in between ----------------------------------------------------------------------------

    def note_answer(self, ticket: int, usage: Usage) -> None:
        """What an answer says of prompt speed, and of the restore that should have helped it."""
        self._owner.costs(self._model.name).note_usage(usage)
        expected = self._expected.get(ticket, 0)
        self._expected = {}  # by the next answer the slots hold something else
        if expected < LEAST_TOKENS or usage.cached_tokens is None:
            return
        if not has_helped(expected, usage.cached_tokens):
            why = (
                f"a restore of {expected} tokens spared only {usage.cached_tokens}; "
                "this model's slots are not saved again in this run"
            )
            self._owner.unhelpful[self._model.name] = why
            log.warning("%s: %s", self._key, why)

    async def switch(self, client: EngineClient, prompt: Prompt, ticket: int) -> KvMove:
        """With `kv_conversations`, on an engine with one slot whose only lease is the caller's:
        save the conversation that leaves, restore the one that comes back."""
        if not self._model.kv_conversations or self._slots != 1 or not self._works:
            return KvMove()
        if self._model.name in self._owner.unhelpful:
            return KvMove()
        move = KvMove()
        stop_s = self._variant.timeouts.stop_s
        held = self._held
        with self._owner.saving(stop_s + RESTORE_LIMIT_S, stop_s / 2) as limit:
            ids = await self._ids_of(client, prompt)
            if held is None or ids is None or not is_continued(held, ids):
                saved = restored = 0
                if held is not None and not self._is_held_saved:
                    saved = await self._save_one(client, SLOT, len(held), stop_s)
                self._held = None  # nobody knows what a restore that breaks off leaves
                if ids is not None:
                    restored = await self._bring_back(client, held or (), ids, ticket)
                move = KvMove(restored, saved)
            self._held, self._is_held_saved = ids, False
        if limit.cancelled_caught:
            log.warning("%s: a change of conversations took too long, left at that", self._key)
        return move

    async def _bring_back(
        self, client: EngineClient, held: Sequence[int], ids: Sequence[int], ticket: int
    ) -> int:
        """Restore the conversation that these tokens continue; how many of them it had."""
        found = await self._owner.with_store(self._candidates) or {}
        known = [
            (shared_prefix(entry_ids, ids), entry)
            for entry, entry_ids in found.values()
            if entry_ids is not None
        ]
        shared, best = max(known, key=lambda pair: pair[0], default=(0, None))
        if best is None or shared < max(LEAST_TOKENS, shared_prefix(held, ids) + 1):
            return 0
        try:
            restored = await self._restore_one(client, SLOT, best)
        except trio.Cancelled:
            self._being_restored = None  # the client left: that says nothing of the file
            raise
        await self.settle(ended=False)
        if restored:
            self._expect(best, found[best.name][1] or (), {ticket: ids})
        return best.tokens if restored else 0

    @staticmethod
    async def _ids_of(client: EngineClient, prompt: Prompt) -> Sequence[int] | None:
        if _NOT_CACHED in prompt.body:
            return None  # its answer says nothing of what was in the cache
        return await client.tokenize_request(prompt.endpoint, prompt.body, TOKENIZE_LIMIT_S)


def _is_there(folder: Path) -> bool:
    """Make it again if somebody cleaned up: llama-server does not start without it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("KV carry-over: %s is gone and cannot be made: %s", folder, error.strerror)
        return False
    return True
