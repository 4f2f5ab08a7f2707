"""EngineKv: the KV caches of one engine's slots, saved before its stop, restored after its start.

Each step has a time limit: nothing here may cost a request or a swap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio

from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.config.server_options import SLEEP_IDLE
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.kv.before_sleep import BeforeSleep
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.conversations import EMPTY, NO_MOVE, Conversations, KvMove, SlotContents
from trio_gateway.engine.kv.judge import Judge
from trio_gateway.engine.kv.policy import in_order, is_wanted, next_of
from trio_gateway.engine.kv.prompt import Prompt, waiting_ids
from trio_gateway.engine.kv.slot_files import RESTORE_LIMIT_S, Restored, SlotFiles
from trio_gateway.engine.kv.slot_owners import SlotOwners
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

SLOW_DISK = 4.0  # times longer than measured
UNWANTED_LIMIT_S = 1.0  # of conversations that no waiting request continues
SLOTS_LIMIT_S = 5.0


class EngineKv:
    """One engine's. `launch_args` first, then `restore`, then `save`.

    Args:
        waiting: the requests that wait for the engine, by ticket.
        owners: whose conversations its slots hold, where owners are kept apart.
    """

    def __init__(
        self,
        owner: KvCarryover,
        key: VariantKey,
        model: ModelConfig,
        variant: VariantConfig,
        kind: EngineKind,
        waiting: Callable[[], Mapping[int, Prompt]],
        owners: SlotOwners | None = None,
    ) -> None:
        self._owner, self._key, self._model = owner, key, model
        self._kind, self._waiting, self._owners = kind, waiting, owners
        self._stop_s = variant.timeouts.stop_s
        self._sleep_s = max(variant.engine_args.number(SLEEP_IDLE) or 0, 0)
        self._before_sleep: BeforeSleep | None = None
        self._judge = Judge(owner, key)
        self.note_answer = self._judge.note_answer
        self._files = SlotFiles(owner, key, model, variant, self._judge.prompt_tokens)
        self._conversations = Conversations(
            owner, key, self._files, self._judge, self._stop_s, owners
        )
        self._context, self._usable_slots, self._own_slots = 0, 1, 1
        self._shared_tokens: int | None = None
        self.restored_tokens = 0
        self._restored_for: dict[str, int] = {}  # by owner
        self.saved_tokens = 0
        self._distrust: str | None = None  # why nothing in its slots is worth keeping

    def launch_args(self, args: Sequence[str]) -> list[str]:
        """The arguments, with a folder for slots if they name none and the engine can have one."""
        return self._files.launch_args(args, self._kind)

    def tidy(self) -> None:
        """The engine is gone: nothing that is not the store's stays where it wrote."""
        self._owner.tidy()

    # -- after a start -------------------------------------------------------------------------

    async def restore(
        self,
        client: EngineClient,
        facts: EngineFacts,
        context: int,
        usable_slots: int,
        shared_tokens: int | None = None,
    ) -> None:
        """Restore what the waiting requests continue, and what was used last.

        `usable_slots`: those that the gateway fills; the engine's own may be more, or fewer.
        """
        self._context, self._shared_tokens = context, shared_tokens
        self._usable_slots, self._own_slots = usable_slots, facts.slots or usable_slots
        if self._files.folder is None or self._owner.folder is None:
            return
        if (why := self._owner.unhelpful.get(self._model.name)) is not None:
            log.info("%s: nothing is restored: %s", self._key, why)
            return
        await self._files.identify(facts, shared_tokens)
        if not self._files.works:
            log.info("%s: no KV carry-over: its model's file cannot be read", self._key)
            return
        with trio.move_on_after(RESTORE_LIMIT_S) as limit:
            try:
                await self._restore(client)
            except Exception:  # a bug of ours may cost the cache, but not the start
                log.exception("%s: a bug in the gateway; please report it", self._key)
        if limit.cancelled_caught:
            log.warning("%s: restoring took over %g s, gave up", self._key, RESTORE_LIMIT_S)

    async def _restore(self, client: EngineClient) -> None:
        found = await self._files.restorable(self._context)
        if self._owners is not None:
            found = {name: saved for name, saved in found.items() if saved.entry.owner}
        if not found:
            return
        waiting = self._waiting()
        known = await waiting_ids(client, waiting)

        def prompts_for(name: str) -> dict[int, Sequence[int]]:
            """Those that may continue it, by ticket."""
            if self._owners is None:
                return known
            owner = found[name].entry.owner
            return {t: ids for t, ids in known.items() if waiting[t].owner == owner}

        slots = await client.read_slots(SLOTS_LIMIT_S)
        free = [s.id for s in slots] if slots else [*range(self._usable_slots)]
        spare_s = UNWANTED_LIMIT_S
        for name in in_order(
            {n: saved.ids for n, saved in found.items()}, lambda n: [*prompts_for(n).values()]
        ):
            (entry, ids), prompts = found[name], prompts_for(name)
            total = self.restored_tokens + entry.tokens
            if self._shared_tokens is not None and total > self._shared_tokens:
                continue  # the slots share one cache, and that would be too full
            if not free:
                return
            if not is_wanted(ids, [*prompts.values()]):
                spare_s -= self._owner.costs(self._model.name).restore_s(entry.size_bytes)
                if spare_s < 0:
                    continue  # no request waits for it, but all that wait would wait for this
            match await self._files.restore(client, free[0], entry):
                case Restored.IN_DOUBT:
                    return
                case Restored.NO:
                    continue
            if self._owners is not None:
                next_up = next_of(ids, entry.tokens, entry.prompt_tokens, prompts)
                body = b"" if next_up is None else waiting[next_up.ticket].body
                self._owners.restored(free[0], entry.owner, body)
            del free[0]
            self.restored_tokens = total
            before = self._restored_for.get(entry.owner, 0)
            self._restored_for[entry.owner] = before + entry.tokens
            self._conversations.contents = SlotContents(ids, entry.owner, is_saved=True)
            self._judge.expect(ids, entry, prompts)

    @property
    def in_doubt(self) -> bool:
        """A restore was begun, and how it ended is unknown."""
        return self._files.in_doubt

    async def outlived(self, exited: trio.Event, news_s: float) -> bool:
        """Whether the engine lives after its restores; it is known `news_s` after their end."""
        if self.in_doubt:
            with trio.move_on_after(news_s):
                await exited.wait()
        ended = exited.is_set()
        await (self.settle_ended() if ended else self.settle())
        return not ended

    async def settle(self) -> None:
        """Drop the file of a restore that is in doubt: the engine lives, and did not answer."""
        await self._files.settle("no answer came in time")

    async def settle_ended(self) -> None:
        """The engine ended during its restores. Drop the file of one that is in doubt."""
        self.restored_tokens, self._restored_for = 0, {}
        self._conversations.contents = EMPTY
        self._judge.forget()
        await self._files.settle("the engine ended while it restored them")

    # -- before a stop -------------------------------------------------------------------------

    async def save(self, client: EngineClient) -> None:
        """Save each slot that holds a conversation worth it."""
        if self._before_sleep is not None and self._before_sleep.holds_nothing_new:
            return
        self.saved_tokens = 0
        if not self._files.works or not self._owner.saves_now:
            return
        if self._distrust is not None:
            log.info("%s: nothing saved: %s", self._key, self._distrust)
            return
        # At a shutdown half of what the whole stop may take, so that a hanging engine is still
        # asked to end in time; before a swap long enough for a slow disk.
        limit_s = self._stop_s / 2
        if not self._owner.is_closing:
            expected_s = self._owner.costs(self._model.name).carry_s(self._context) or 0.0
            limit_s = max(self._stop_s, SLOW_DISK * expected_s)
        with self._owner.saving(limit_s, self._stop_s / 2) as limit:
            slots = await client.read_slots(SLOTS_LIMIT_S)
            if slots is None:
                log.info("%s: nothing saved: the engine does not show its slots", self._key)
            for slot in slots or ():
                owner = "" if self._owners is None else self._owners.owner_of(slot.id)
                # Without tokens nothing was asked of it since its start.
                if slot.tokens is not None and owner is not None:
                    self.saved_tokens += await self._files.save(
                        client, slot.id, slot.tokens, limit_s, owner
                    )
        if limit.cancelled_caught:
            self._owner.counts[self._model.name].failed_saves += 1
            log.warning(
                "%s: saving took over %g s, gave up (engine_stop_timeout)", self._key, limit_s
            )

    # -- in between ----------------------------------------------------------------------------

    async def keep_saved(self, client: EngineClient) -> None:
        """Of an engine that forgets its slots when it has been idle for long. Never returns."""
        if not self._sleep_s:
            await trio.sleep_forever()
        self._before_sleep = BeforeSleep(client.connections, self._sleep_s)
        await self._before_sleep.run(partial(self.save, client))

    def restored_for(self, owner: str) -> int:
        """How many tokens were restored at its start, as far as they concern this owner."""
        if self._owners is None:
            return self.restored_tokens
        return self._restored_for.get(owner, 0)

    def distrust(self, why: str) -> None:
        """What this engine computes from now on is not what the next one would: nothing of it is
        saved any more."""
        self._distrust = why

    @property
    def takes_turns(self) -> bool:
        """With `kv_conversations`, on an engine with one slot: conversations are switched."""
        if not self._model.kv_conversations or self._own_slots != 1 or not self._files.works:
            return False
        if self._distrust is not None:
            return False
        return self._model.name not in self._owner.unhelpful

    async def switch(self, client: EngineClient, prompt: Prompt, ticket: int) -> KvMove:
        """If it `takes_turns`, and the caller has the engine's only lease: save the conversation
        that leaves, restore the one that comes back."""
        if not self.takes_turns:
            return NO_MOVE
        return await self._conversations.switch(client, prompt, ticket, self._context)
