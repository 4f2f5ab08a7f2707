"""ServeApi: Ray Serve's REST interface of one cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.remote_site import RemoteSite, tls_context
from trio_gateway.engine.cluster.room import Usage, usage_of
from trio_gateway.engine.cluster.serve_state import ServeState, Unwritable
from trio_gateway.engine.errors import EngineDisconnected, EngineLost
from trio_gateway.engine.http.connections import Connections
from trio_gateway.engine.http.control import Answer, ControlClient

log = logging.getLogger(__name__)

APPLICATIONS = "/api/serve/applications/"
CLUSTER_STATUS = "/api/cluster_status"
READ_S, WRITE_S = 10.0, 60.0  # the first write starts Serve itself
TRIES = 5
PAUSE_S = 0.5
_SAID_CHARACTERS = 500


class ClusterUnreachable(Exception):
    """The cluster does not answer, or not as one that can be used now; the text says why."""


class ClusterRefuses(Exception):
    """It will not be another answer if it is asked again; the text says why."""


class ServeApi:
    """One for each cluster; close it with `close`. `address` is as configured.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    def __init__(self, options: EngineOptions) -> None:
        assert options.cluster is not None, "it runs on a cluster"
        self.address = options.cluster.address
        tls = tls_context(options) if self.address.startswith("https:") else None
        self._site = RemoteSite(self.address, tls, options.connect_timeout_s, ())
        self._connections = Connections()
        headers = [(n.encode(), v.reveal().encode()) for n, v in options.cluster.headers.items()]
        self._client = ControlClient(self._site, self._connections, headers)
        self._writing = trio.Lock()

    def host_url(self, port: int) -> str:
        """Another port of the same host."""
        parts = urlsplit(self.address)
        host = parts.hostname or ""
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def read(self) -> ServeState:
        """Raises ClusterUnreachable, ClusterRefuses."""
        answer = await self._ask("GET", APPLICATIONS, READ_S)
        try:
            return ServeState(answer.body)
        except ValueError as error:
            raise ClusterRefuses(f"{self.address}: {error}") from None

    async def usage(self) -> Usage | None:
        """What its nodes have; None: it does not say."""
        try:
            answer = await self._ask("GET", CLUSTER_STATUS, READ_S)
        except (ClusterUnreachable, ClusterRefuses) as error:
            log.debug("%s", error)
            return None
        return usage_of(answer.value)

    async def change(
        self,
        add: Mapping[str, Mapping[str, Any]],
        remove: Collection[str] = (),
        unless: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Have these applications, by name, and not those; all others stay. Another may write at
        the same time, and the last one wins: so it is read again afterwards, and tried again.

        Args:
            unless: those are not removed; asked when it is this one's turn to write.

        Raises:
            ClusterUnreachable, ClusterRefuses
        """
        async with self._writing:
            why, remove = "", [name for name in remove if not unless(name)]
            for _ in range(TRIES):
                state = await self.read()
                if self._is_so(state, add, remove):
                    return
                try:
                    body = msgspec.json.encode(state.changed(add, remove))
                except Unwritable as error:
                    why = str(error)
                else:
                    why = "others write its state as well, and undo what the gateway writes"
                    await self._ask("PUT", APPLICATIONS, WRITE_S, body)
                    if self._is_so(await self.read(), add, remove):
                        return
                await trio.sleep(PAUSE_S)
            raise ClusterRefuses(f"{self.address}: {why}")

    @staticmethod
    def _is_so(
        state: ServeState, add: Mapping[str, Mapping[str, Any]], remove: Collection[str]
    ) -> bool:
        there = {*state.of("")}
        return there.issuperset(add) and there.isdisjoint(remove)

    async def _ask(self, method: str, path: str, timeout_s: float, body: bytes = b"") -> Answer:
        try:
            answer = await self._client.request(method, self._site.target(path), timeout_s, body)
        except EngineLost as error:
            raise ClusterUnreachable(f"the cluster at {self.address}: {error}") from None
        said = answer.body[:_SAID_CHARACTERS].decode("utf-8", "replace").strip()
        if answer.status >= 500 and answer.status != 501:
            reason = f"the cluster at {self.address} answers with HTTP {answer.status}: {said}"
            raise ClusterUnreachable(reason)
        if answer.status != 200:
            hint = "; see `headers`" if answer.status in (401, 403) else ""
            reason = f"the cluster at {self.address} refuses (HTTP {answer.status}{hint}): {said}"
            raise ClusterRefuses(reason)
        return answer

    def close(self) -> None:
        self._connections.abort_all(EngineDisconnected("the gateway stops"))
