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
        told = {name: self._told(replica) for name, replica in by_name.items()}
        return [[by_name[name]] for name in self._homes.order(key, told, time.monotonic())]

    def _told(self, replica: RunningReplica) -> int:
        """Serve forgets it after ten seconds without news, which an answer may take."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Ray Serve calls this once the replica has taken it."""
        about = pending_request.metadata
        name, key = replica_id.unique_id, about.session_id
        self._homes.begins(about.internal_request_id, name, key, time.monotonic())

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Ray Serve calls this however it ended."""
        self._homes.ends(internal_request_id, replica_id.unique_id)
