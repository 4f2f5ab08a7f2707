"""Takes applications of gateways out of clusters, for `trio-gateway cluster clean`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.cluster.application import OURS, names_begin
from trio_gateway.engine.cluster.clusters import Clusters
from trio_gateway.engine.cluster.serve_api import ClusterRefuses, ClusterUnreachable, ServeApi


class Cleaned(msgspec.Struct, frozen=True):
    """One cluster. `names`: what was taken out; `error`: why it could not be."""

    address: str
    names: tuple[str, ...] = ()
    error: str | None = None


async def clean_all(source: Path, options: Sequence[EngineOptions], of_all: bool) -> list[Cleaned]:
    """One for each cluster that the options name. `of_all`: also those of other gateways."""
    clusters = Clusters(source)
    begin = OURS if of_all else names_begin(clusters.owner)
    done: dict[str, Cleaned] = {}
    try:
        for of_one in options:
            assert of_one.cluster is not None, "it runs on a cluster"
            address = of_one.cluster.address
            if address in done:
                continue
            try:
                done[address] = await _clean(clusters.api(of_one), begin)
            except (ClusterUnreachable, ClusterRefuses, OSError) as error:
                done[address] = Cleaned(address, error=str(error))
    finally:
        await clusters.close()
    return [*done.values()]


async def _clean(api: ServeApi, begin: str) -> Cleaned:
    names = (await api.read()).of(begin)
    if names:
        await api.change({}, names)
    return Cleaned(api.address, tuple(names))
