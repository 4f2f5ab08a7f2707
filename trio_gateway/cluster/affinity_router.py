"""AffinityRouter: how Ray Serve's proxies choose a replica, so that a conversation stays at one."""

from __future__ import annotations

import random
import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from trio_gateway.cluster.homes import Homes


class AffinityRouter(RequestRouter):  # type: ignore[misc]
    """Requests with a session's id, which Serve takes from the header X-Session-Id, go where
    `Homes` says; all others to the replica that has the least to do."""

    def initialize_state(self, places: int) -> None:
        """Ray Serve calls this. `places`: requests that a replica works on at a time."""
        self._homes = Homes(places)
        # Serve's own count is gone after ten seconds without news, which an answer may take.
        self._works_on: dict[str, set[str]] = {}  # by replica, the ids of requests from here

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Replicas to be tried, each list before the next; of one list the least busy."""
        any_order = random.sample(candidate_replicas, len(candidate_replicas))
        if pending_request is None:
            return [any_order]
        # Where none takes it: without this, Serve would try again without a pause.
        pending_request.routing_context.should_backoff = True
        key = pending_request.metadata.session_id
        if not key:
            return [any_order]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        busy = {name: self._load(replica) for name, replica in by_name.items()}
        return [[by_name[name]] for name in self._homes.order(key, busy, time.monotonic())]

    def _load(self, replica: RunningReplica) -> int:
        told = self.replica_queue_len_cache.get(replica.replica_id) or 0
        return max(told, len(self._works_on.get(replica.replica_id.unique_id, ())))

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Ray Serve calls this once the replica has taken it."""
        name, metadata = replica_id.unique_id, pending_request.metadata
        self._works_on.setdefault(name, set()).add(metadata.internal_request_id)
        if metadata.session_id:
            self._homes.note(metadata.session_id, name, time.monotonic())

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Ray Serve calls this however it ended."""
        name = replica_id.unique_id
        working = self._works_on.get(name, set())
        working.discard(internal_request_id)
        if not working:
            self._works_on.pop(name, None)
