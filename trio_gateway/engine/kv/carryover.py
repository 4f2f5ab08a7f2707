"""KvCarryover: owns the store of saved KV caches, and what this run has learned about using them.

What happens to one engine's slots is in `slots.py`; what is worth it, in `policy.py`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs
import trio

from trio_gateway.config.schema import KvCarryoverConfig, VariantConfig
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.kv.fingerprint import BUILD, LAYOUT, fingerprint_of
from trio_gateway.engine.kv.own_folder import open_own_store
from trio_gateway.engine.kv.policy import KvCosts, Verdict
from trio_gateway.engine.kv.store import KvStore, KvStoreUnavailable
from trio_gateway.engine.scheduling.events import VariantKey

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_S = 2.0


class KvCounts(msgspec.Struct):
    """What was done so far. `unhelpful_restores`: after which the engine read the prompt again all
    the same."""

    saves: int = 0
    saved_tokens: int = 0
    saved_bytes: int = 0
    failed_saves: int = 0
    restores: int = 0
    restored_tokens: int = 0
    restored_bytes: int = 0
    failed_restores: int = 0
    unhelpful_restores: int = 0


class KvCarryover:
    """Run `run` in a task for as long as there are engines. Without a config, or where the store
    cannot be opened, it does nothing."""

    def __init__(self, config: KvCarryoverConfig | None) -> None:
        self._config = config
        self._store: KvStore | None = None
        self._lock = trio.Lock()  # the store takes one caller at a time
        self._costs: dict[str, KvCosts] = {}
        self.unhelpful: dict[str, str] = {}  # models whose restores do not help: how that showed
        self.verdicts: dict[VariantKey, Verdict] = {}  # of this run
        self.tell: Callable[[], None] | None = None  # that there is another verdict
        self.misses: dict[str, int] = {}  # by model: restores that did not help, since one did
        self.counts: defaultdict[str, KvCounts] = defaultdict(KvCounts)  # by model
        self._saving: dict[trio.CancelScope, float] = {}  # with its limit at a shutdown
        self.is_closing = False  # the gateway is stopping: what is saved now must outlive it

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the store open until cancelled."""
        if self._config is None:
            task_status.started()
            return
        folder = self._config.directory or default_folder()
        try:
            with open_own_store(
                folder, self._config.max_bytes, persist=self._config.persist
            ) as self._store:
                if found := self._store.files:
                    log.info("KV carry-over: %d files are in %s", found, self._store.directory)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    # Shielded so that a thread that has begun with the files ends before they are
                    # swept: a commit in the same folder takes milliseconds.
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                        async with self._lock:
                            self._store = None
                    self._store = None
        except KvStoreUnavailable as error:
            log.warning("KV carry-over is off: %s", error)
            task_status.started()

    @property
    def folder(self) -> Path | None:
        """Where engines save their slots; None: nowhere."""
        return self._store.slots if self._store is not None else None

    def tidy(self) -> None:
        """An engine has ended: what it wrote for others than the gateway goes with it."""
        if self._store is not None:
            self._store.tidy_slots()

    @property
    def swept(self) -> tuple[int, int]:
        """What an earlier run had left of saved caches: files, and their bytes."""
        return (0, 0) if self._store is None else self._store.swept

    @property
    def saves_now(self) -> bool:
        """Whether a cache that is saved now can still be used."""
        persist = self._config is not None and self._config.persist
        return self._store is not None and (persist or not self.is_closing)

    def costs(self, model: str) -> KvCosts:
        if (known := self._costs.get(model)) is None:
            known = self._costs[model] = KvCosts()
        return known

    def remember(self, model: str, known: KvCosts, no_help: str | None) -> None:
        """What earlier runs have found out; what this one has stays as it is. `no_help`: what
        showed that restores do not help."""
        costs = self.costs(model)
        for name in KvCosts.__slots__:
            if getattr(costs, name) is None:
                setattr(costs, name, getattr(known, name))
        if no_help is not None and model not in self.unhelpful:
            self.unhelpful[model] = f"{no_help}, in an earlier run; its slots are not saved"

    def note_verdict(self, key: VariantKey, verdict: Verdict) -> None:
        before, self.verdicts[key] = self.verdicts.get(key), verdict
        if self.tell is not None and (before is None or before.helps is not verdict.helps):
            self.tell()

    def forget(self, model: str) -> None:
        """Its engines are started otherwise from now on."""
        self._costs.pop(model, None)
        self.misses.pop(model, None)
        self.unhelpful.pop(model, None)

    @contextmanager
    def saving(self, limit_s: float, limit_at_shutdown_s: float) -> Iterator[trio.CancelScope]:
        """Ends the block after the limit; after the other one, once a shutdown has begun."""
        with trio.move_on_after(limit_s) as scope:
            self._saving[scope] = limit_at_shutdown_s
            try:
                yield scope
            finally:
                del self._saving[scope]

    def begin_shutdown(self) -> None:
        self.is_closing = True
        for scope, limit_s in self._saving.items():
            left_s = limit_s if self.saves_now else 0.0
            scope.deadline = min(scope.deadline, trio.current_time() + left_s)

    async def with_store(self, work: Callable[[KvStore], T]) -> T | None:
        """Do something with the store in a thread; None without a store.

        Not abandoned on cancel: what the store has begun with its files, it ends.
        """
        async with self._lock:
            store = self._store
            return None if store is None else await trio.to_thread.run_sync(work, store)

    def discard(self, path: Path) -> None:
        """Remove what an engine was writing. Needs no lock: the store does not know that file."""
        if self._store is not None:
            self._store.discard(path)

    def new_name(self) -> str | None:
        return self._store.new_name() if self._store is not None else None

    async def preview(
        self, model: str, variant: VariantConfig, facts: EngineFacts, context: int
    ) -> str:
        """In words: what an engine of this variant would restore at its start."""
        if self._store is None:
            known = "no store of saved caches is open" if self._config else "server.kv_carryover"
            return f"nothing to restore ({known})"
        if (why := self.unhelpful.get(model)) is not None:
            return why
        fingerprint = await trio.to_thread.run_sync(fingerprint_of, variant, facts)
        entries = await self.with_store(lambda store: store.also_of(model)) or []
        if not entries:
            return "nothing is saved for this model"
        if fingerprint is None:
            known = "its model file will be known once the engine runs"
            return f"{len(entries)} conversations are saved; {known}"
        for entry in entries:
            # These are known only once the engine runs.
            different = set(fingerprint.differs_in(entry.fingerprint)) - {BUILD, LAYOUT}
            if not different and entry.tokens <= context:
                return f"{entry.tokens} saved tokens would be restored, by the same engine build"
        return f"none of {len(entries)} saved conversations fits this variant"

    def totals(self) -> dict[str, object]:
        """For `/gateway/engines`."""
        store = self._store
        return {
            "active": store is not None,
            "files": store.files if store is not None else 0,
            "bytes": store.total_bytes if store is not None else 0,
            "max_bytes": store.max_bytes if store is not None else 0,
            "not_helpful_for": self.unhelpful,
            **msgspec.structs.asdict(self.all_counts()),
        }

    def all_counts(self) -> KvCounts:
        """Of all models together."""
        each = [msgspec.structs.astuple(counts) for counts in self.counts.values()]
        return KvCounts(*map(sum, zip(*each, strict=True)))


def default_folder() -> Path:
    """A private folder of the user's own cache."""
    return platformdirs.user_cache_path("trio-gateway", appauthor=False) / "kv"
