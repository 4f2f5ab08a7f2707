"""ClusterProcess: in place of the process of an engine that runs on a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.ray import Contact, OnCluster
from trio_gateway.engine.cluster.application import Application
from trio_gateway.engine.cluster.holdings import Holdings
from trio_gateway.engine.cluster.room import no_room
from trio_gateway.engine.cluster.serve_api import ClusterRefuses, ClusterUnreachable, ServeApi
from trio_gateway.engine.cluster.serve_state import ServeState, Standing, Status
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.process import Ending, StopReport
from trio_gateway.tasks import open_flat_nursery

POLL_STARTING_S, POLL_S = 0.5, 2.0
# A start waits so long for a cluster that answered a moment ago, or for room in it.
UNREACHABLE_S = 15.0
NO_ROOM_S = 15.0
TAKE_OUT_S = 10.0  # at least: an application that stays behind holds what others need
CLEAN_COMMAND = "`trio-gateway cluster clean` takes it out"


class ClusterProcess:
    """An application while it is there. `copies`: replicas that run, one at least: a request that
    comes while Serve replaces the only one waits there. Made by `ClusterApplication.open`."""

    pid = returncode = None

    def __init__(
        self, api: ServeApi, application: Application, contact: Contact, log: logging.Logger
    ) -> None:
        self._api, self._application, self._log = api, application, log
        self._contact = contact
        self._standing = Standing(Status.ABSENT)
        self._is_there = False  # or may be, and is to be taken out
        self.is_left = False
        self._putting = trio.CancelScope()
        self._room: str | None = None  # why there is none
        self._changed = trio.Event()
        self.exited = trio.Event()
        self.copies = 1

    @property
    def status(self) -> str:
        match self._standing.status:
            case Status.DEPLOY_FAILED:
                return "could not be deployed"
            case Status.ABSENT | Status.DELETING:
                return "was taken out of Ray Serve by somebody else"
        return "runs on the cluster"

    def last_lines(self, count: int = 200) -> list[str]:
        """What Serve says of it: of a failure, the traceback of a replica."""
        lines = self._standing.lines
        return (lines if self._room is None else [*lines, self._room])[-count:]

    def owns_port(self, port: int) -> bool | None:
        return None

    async def copies_changed(self) -> int:
        """Waits until there are others, and says how many."""
        await self._changed.wait()
        self._changed = trio.Event()
        return self.copies

    # -- its end ---------------------------------------------------------------------------------

    async def stop(self, timeout_s: float) -> StopReport:
        """Take it out, and wait until its replicas are gone, for TAKE_OUT_S at least."""
        begun, limit_s = trio.current_time(), max(timeout_s, TAKE_OUT_S)
        self._putting.cancel(reason="the engine is to stop")  # it may be waited for without end
        await self._take_out_within(limit_s)
        with trio.move_on_at(begun + limit_s):
            await self._until_gone()
        ending = Ending.LEFT if self.is_left else Ending.STOPPED
        return StopReport(ending, trio.current_time() - begun)

    async def kill(self) -> StopReport:
        """It is given up as it does not answer. It stays: the next start finds it as it is then."""
        self._is_there, self.is_left = False, True
        return StopReport(Ending.LEFT, 0.0)

    async def let_go(self) -> None:
        """Nothing of it is to be left, whatever ended the engine."""
        # Shielded so that a cancelled gateway leaves nothing on the cluster; the limit is inside.
        with trio.CancelScope(shield=True):
            await self._take_out_within(TAKE_OUT_S)

    async def _take_out_within(self, limit_s: float) -> None:
        if not self._is_there:
            return
        why = f"it did not answer within {limit_s:g} s"
        with trio.move_on_after(limit_s):
            try:
                await self._api.change({}, [self._application.name])
                self._is_there = False
                return
            except (ClusterUnreachable, ClusterRefuses) as error:
                why = str(error)
        self._is_there, self.is_left = False, True
        self._log.warning(
            "%s stays on the cluster at %s: %s; %s",
            self._application.name, self._api.address, why, CLEAN_COMMAND,
        )  # fmt: skip

    async def _until_gone(self) -> None:
        """As far as can be seen."""
        try:
            while not self.is_left:
                standing = (await self._api.read()).standing(self._application.name)
                if standing.status is not Status.DELETING:
                    return
                await trio.sleep(POLL_STARTING_S)
        except (ClusterUnreachable, ClusterRefuses) as error:
            self._log.debug("%s", error)

    # -- its life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Put it there, and watch it until it is gone.

        Raises:
            StartFailed: the cluster has no room for it, or does not answer, before it was deployed.
        """
        try:
            with self._putting:
                await self._put_in()
        except ClusterUnreachable as error:
            raise StartFailed(str(error), unavailable=True) from None
        except ClusterRefuses as error:
            raise StartFailed(str(error)) from None
        if not self._putting.cancel_called:
            await self._watch()

    async def _put_in(self) -> None:
        """One of this name that is there is as it should be, unless it has failed."""
        name = self._application.name
        found = (await self._api.read()).standing(name).status
        self._is_there = True
        if found is Status.DEPLOY_FAILED:
            await self._api.change({}, [name])
        await self._api.change({name: self._application.told})

    async def _watch(self) -> None:
        heard_at = full_since = trio.current_time()
        while not self.exited.is_set():
            now = trio.current_time()
            try:
                state = await self._api.read()
            except (ClusterUnreachable, ClusterRefuses) as error:
                self._contact.answers = False
                if not self._contact.deployed.is_set() and now > heard_at + UNREACHABLE_S:
                    raise StartFailed(str(error), unavailable=True) from None
            else:
                heard_at, self._contact.answers = now, True
                self._note(state.standing(self._application.name))
                if self._waits_for_room:
                    await self._look_for_room(state, now > full_since + NO_ROOM_S)
                else:
                    full_since = now
            await trio.sleep(POLL_S if self._contact.deployed.is_set() else POLL_STARTING_S)

    def _note(self, standing: Standing) -> None:
        self._standing = standing
        if standing.status is Status.RUNNING:
            self._contact.deployed.set()
        copies = max(standing.running, 1)
        if copies != self.copies:
            self.copies = copies
            self._changed.set()
        if standing.status in (Status.DEPLOY_FAILED, Status.ABSENT, Status.DELETING):
            self.exited.set()

    @property
    def _waits_for_room(self) -> bool:
        s = self._standing
        is_deployed = self._contact.deployed.is_set()
        return not is_deployed and s.starting > 0 and s.placed == s.running == 0

    async def _look_for_room(self, state: ServeState, is_long: bool) -> None:
        usage = await self._api.usage()
        if usage is None:
            return
        self._room = no_room(self._standing.needs, usage, state)
        if self._room is not None and is_long and not (usage.is_growing or state.is_clearing):
            raise StartFailed(self._room, unavailable=True)


class ClusterApplication:
    """One engine's: what it is, and how it is put there."""

    def __init__(
        self,
        application: Application,
        api: Callable[[], ServeApi],
        serve_url: str | None,
        holdings: Holdings[ServeApi],
    ) -> None:
        self._application, self._open_api, self._serve_url = application, api, serve_url
        self._holdings = holdings
        self.contact = Contact()

    async def open_client(self, kind: EngineKind, options: EngineOptions) -> EngineClient:
        """What speaks to its engines, through Serve's proxy.

        Raises:
            StartFailed: the cluster cannot be reached.
            OSError: a file that the options name cannot be used.
        """
        api = self._open_api()
        try:
            state = await api.read()
        except ClusterUnreachable as error:
            raise StartFailed(str(error), unavailable=True) from None
        except ClusterRefuses as error:
            raise StartFailed(str(error)) from None
        base = self._serve_url or api.host_url(state.http_port)
        client = kind.client(f"{base}/{self._application.name}", options)
        if isinstance(client, OnCluster):
            client.contact = self.contact
        return client

    @asynccontextmanager
    async def open(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[ClusterProcess]:
        """A Launcher: on the cluster for as long as the block runs.

        Raises:
            StartFailed
        """
        api, name = self._open_api(), self._application.name
        process = ClusterProcess(api, self._application, self.contact, log)
        self._holdings.take(name)
        try:
            async with open_flat_nursery() as nursery:
                nursery.start_soon(process.run)
                yield process
                nursery.cancel_scope.cancel(reason="the engine is over")
        finally:
            try:
                await process.let_go()
            finally:
                self._holdings.give_back(name, api if process.is_left else None)
