"""SlotFiles: an engine's slots written to files of the store, and restored from them.

Nothing here may cost a request or a swap: whatever goes wrong is logged and counted, and that is
all. Nothing is trusted: a file is checked before an engine sees it, and an engine's `n_restored` is
compared with what was saved.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts, SlotFile, SlotRefused, SlotUnanswered
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.file import KvEntry
from trio_gateway.engine.kv.fingerprint import Fingerprint, fingerprint_of
from trio_gateway.engine.kv.policy import LEAST_TOKENS
from trio_gateway.engine.kv.store import KvLendRefused, KvSaveRefused, KvStore
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

RESTORE_LIMIT_S = 30.0  # of one slot, and of all after a start
ERASE_LIMIT_S = 5.0


class Saved(NamedTuple):
    """A conversation that this engine can restore; `ids` None: its file does not say them."""

    entry: KvEntry
    ids: Sequence[int] | None


class Restored(enum.Enum):
    """Whether a slot holds what it was to be given."""

    YES = "it holds it"
    NO = "it does not, and its file was dropped if that was to blame"
    IN_DOUBT = "the engine did not say; `settle` or `acquit` it"


class SlotFiles:
    """Of one engine. `launch_args` first, then `identify`; the rest if it `works` by then."""

    def __init__(
        self,
        owner: KvCarryover,
        key: VariantKey,
        model: ModelConfig,
        variant: VariantConfig,
        prompt_tokens: Callable[[int], int | None],
    ) -> None:
        self._owner, self._key, self._model, self._variant = owner, key, model, variant
        self._prompt_tokens = prompt_tokens  # of the last turn of a conversation of so many tokens
        self.folder: Path | None = None  # where this engine keeps slots
        self._fingerprint: Fingerprint | None = None
        self._being_restored: KvEntry | None = None

    def launch_args(self, args: Sequence[str], kind: EngineKind) -> list[str]:
        """The arguments, with a folder for slots if they name none and the engine can have one."""
        own = kind.slot_folder(EngineArgs(args))
        if own is not None:
            self.folder = self._variant.workdir / own
            return list(args)
        folder = self._owner.folder
        if folder is None or not _exists(folder):
            return list(args)
        added = kind.slot_folder_args(self._variant.binary, str(folder))
        self.folder = folder if added else None
        return [*args, *added]

    async def identify(self, facts: EngineFacts, shared_tokens: int | None) -> None:
        """Find out what a file must have been saved by, to be of any use to this engine."""
        self._fingerprint = await trio.to_thread.run_sync(
            fingerprint_of, self._variant, facts, shared_tokens
        )

    @property
    def works(self) -> bool:
        return self.folder is not None and self._fingerprint is not None

    # -- restoring -----------------------------------------------------------------------------

    async def restorable(self, context: int) -> dict[str, Saved]:
        """By name, what an engine of this context can restore; the log says why not the others."""
        return await self._owner.with_store(lambda store: self._restorable(store, context)) or {}

    def _restorable(self, store: KvStore, context: int) -> dict[str, Saved]:
        assert self._fingerprint is not None
        encoded = self._fingerprint.encode()
        entries = store.candidates(self._model.name, encoded, context)
        for entry in store.also_of(self._model.name):
            if entry not in entries:
                different = self._fingerprint.differs_in(entry.fingerprint)
                why = (
                    f"different {', '.join(different)}"
                    if different
                    else f"{entry.tokens} tokens do not fit into {context}"
                )
                log.info("%s: a saved conversation is not restored: %s", self._key, why)
        return {entry.name: Saved(entry, store.ids_of(entry)) for entry in entries}

    async def restore(self, client: EngineClient, slot: int, entry: KvEntry) -> Restored:
        """Put what the entry's file has into the slot."""
        folder = self.folder
        assert folder is not None
        self._being_restored = entry
        lent: Path | None = None
        try:
            lent = await self._owner.with_store(lambda store: store.lend(entry, folder))
            if lent is None:  # the store was closed
                self._being_restored = None
                return Restored.NO
            read = await client.restore_slot(slot, lent.name, RESTORE_LIMIT_S)
            if read.tokens != entry.tokens:
                await client.erase_slot(slot, ERASE_LIMIT_S)
                raise SlotRefused(f"the engine restored {read.tokens} of {entry.tokens} tokens")
        except SlotUnanswered:
            return Restored.IN_DOUBT
        except (KvLendRefused, SlotRefused) as error:
            await self._drop(entry, str(error))
            return Restored.NO
        finally:
            if lent is not None:
                # Shielded because only this removes what another folder was lent: a moment's work.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._owner.with_store(lambda store: store.give_back(lent))
        self._being_restored = None
        self._owner.costs(self._model.name).note_restore(read.size_bytes, read.took_ms)
        counts = self._owner.counts[self._model.name]
        counts.restores += 1
        counts.restored_tokens += entry.tokens
        counts.restored_bytes += read.size_bytes
        await self._owner.with_store(lambda store: store.used(entry))
        log.info(
            "%s: restored %d tokens into slot %d in %.0f ms",
            self._key, entry.tokens, slot, read.took_ms,
        )  # fmt: skip
        return Restored.YES

    @property
    def in_doubt(self) -> bool:
        """A restore was begun, and how it ended is unknown."""
        return self._being_restored is not None

    async def settle(self, why: str) -> None:
        """Drop the file of a restore that is in doubt."""
        if (entry := self._being_restored) is not None:
            await self._drop(entry, why)

    def acquit(self) -> None:
        """The doubt says nothing of the file: it is kept."""
        self._being_restored = None

    async def _drop(self, entry: KvEntry, why: str) -> None:
        await self._owner.with_store(lambda store: store.remove(entry))
        self._being_restored = None
        self._owner.counts[self._model.name].failed_restores += 1
        log.warning("%s: %d saved tokens are dropped: %s", self._key, entry.tokens, why)

    # -- saving --------------------------------------------------------------------------------

    async def save(
        self, client: EngineClient, slot: int, held_tokens: int, limit_s: float, owner: str = ""
    ) -> int:
        """Save a slot, if that is worth it; the tokens that were saved."""
        model, folder = self._model.name, self.folder
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
            kept = await self._keep(folder / name, written, owner)
        except (SlotRefused, KvSaveRefused) as error:
            self._owner.counts[model].failed_saves += 1
            log.warning("%s: slot %d could not be saved: %s", self._key, slot, error)
            return 0
        finally:
            self._owner.discard(folder / name)
        if not kept:
            return 0
        costs.note_save(written.tokens, written.size_bytes, written.took_ms)
        counts = self._owner.counts[model]
        counts.saves += 1
        counts.saved_tokens += written.tokens
        counts.saved_bytes += written.size_bytes
        log.info(
            "%s: saved %d tokens of slot %d, %.1f MB in %.0f ms (%s)",
            self._key, written.tokens, slot, written.size_bytes / 1e6, written.took_ms,
            worth.reason,
        )  # fmt: skip
        return written.tokens

    async def _keep(self, path: Path, written: SlotFile, owner: str) -> bool:
        """Hand a written file to the store. Raises KvSaveRefused."""
        if written.tokens < LEAST_TOKENS:
            return False
        assert self._fingerprint is not None
        model, encoded = self._model.name, self._fingerprint.encode()
        conversations = self._model.kv_conversations

        def keep(store: KvStore) -> bool:
            store.commit(
                path, model=model, fingerprint=encoded, tokens=written.tokens,
                prompt_tokens=self._prompt_tokens(written.tokens), size_bytes=written.size_bytes,
                owner=owner,
            )  # fmt: skip
            if conversations:
                store.keep_newest(model, conversations)
            return True

        return await self._owner.with_store(keep) or False


def _exists(folder: Path) -> bool:
    """Make it again if it was cleaned up: llama-server does not start without it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("KV carry-over: %s is gone and cannot be created: %s", folder, error.strerror)
        return False
    return True
