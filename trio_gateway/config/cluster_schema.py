"""Where and how often an engine runs on a Ray cluster: the frozen struct for those keys."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from trio_gateway.config.secret import Secret


class Placement(enum.Enum):
    """How replicas are spread over the cluster's nodes."""

    PACK = "pack"  # as the cluster sees fit: few nodes
    SPREAD = "spread"  # one of an application on each


class Replicas(msgspec.Struct, frozen=True):
    """So many run at a time, by the load."""

    min: int = 1
    max: int = 1

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min} to {self.max}"


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of one variant.

    `address`: base URL of the cluster's dashboard, which has the REST interface of Ray Serve.
    `serve_url`: base URL of Serve's own HTTP proxy; None: at the same host, at the port that the
    cluster says. `headers` go with every request to either. `resources`: what one replica takes, in
    Ray's names; `memory` in bytes. `is_llama_server`: its command is one.
    """

    address: str
    serve_url: str | None = None
    replicas: Replicas = Replicas()
    resources: Mapping[str, float] = {}
    placement: Placement = Placement.PACK
    headers: Mapping[str, Secret] = {}
    is_llama_server: bool = True
