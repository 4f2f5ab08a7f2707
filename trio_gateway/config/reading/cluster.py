"""Readers for the keys of models and variants whose engines run on a Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.config.cluster_schema import ClusterOptions, Placement, Replicas
from trio_gateway.config.reading import fields
from trio_gateway.config.reading.addresses import plain_url
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.reading.traces import headers

KEYS = ("address", "serve_url", "replicas", "resources", "placement", "headers")
_WHERE = 'where the cluster\'s dashboard is, such as "http://ray-head:8265"'
_RESOURCE = re.compile(r"[A-Za-z][\w.:-]*", re.ASCII)
_RAYS_NAMES = {"cpu": "CPU", "gpu": "GPU"}
_MOST_REPLICAS = 10_000


def options(record: Record, outer: ClusterOptions | None) -> ClusterOptions:
    """Those of this table, each falling back on the table around it."""
    known = outer or ClusterOptions(address="")
    return msgspec.structs.replace(
        known,
        address=record.read("address", _url, known.address),
        serve_url=record.read("serve_url", _url, known.serve_url),
        replicas=record.read("replicas", _replicas, known.replicas),
        resources=record.read("resources", _resources, known.resources),
        placement=record.read("placement", _placement, known.placement),
        headers=record.read("headers", headers, known.headers),
    )


def check(mistakes: Mistakes, path: str, options: ClusterOptions) -> None:
    if not options.address:
        mistakes.add(f"{path}.address", f"missing; expected {_WHERE}")


def _url(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if (found := plain_url(value)) is None:
        # Not shown: it may hold a password.
        mistakes.add(path, f"expected {_WHERE}, without user, query or fragment")
    return found


def _replicas(mistakes: Mistakes, path: str, value: Any) -> Replicas | None:
    """A number, or a table with `min` and `max`."""
    if not fields.is_table(value):
        return _so_many(mistakes, path, value)
    record = Record(mistakes, path, value)
    least = record.read("min", fields.positive_int, 1)
    most = record.read("max", fields.positive_int, least)
    record.finish()
    if most < least:
        mistakes.add(path, f"`max` ({most}) is less than `min` ({least})")
        return None
    if most > _MOST_REPLICAS:
        mistakes.add(path, f"`max` is over {_MOST_REPLICAS}")
        return None
    return Replicas(least, most)


def _so_many(mistakes: Mistakes, path: str, value: Any) -> Replicas | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 1 <= value <= _MOST_REPLICAS and value == int(value):
        return Replicas(int(value), int(value))
    mistakes.expected(path, "a number of replicas, or { min = 1, max = 4 }", value)
    return None


def _resources(mistakes: Mistakes, path: str, value: Any) -> Mapping[str, float] | None:
    """Shares of a GPU or CPU, or numbers of them, and of resources with names of one's own."""
    if not fields.is_table(value):
        mistakes.expected(path, 'a table such as { GPU = 1, CPU = 4, memory = "20GiB" }', value)
        return None
    found: dict[str, float] = {}
    for name, amount in value.items():
        if not isinstance(name, str) or not _RESOURCE.fullmatch(name):
            mistakes.add(path, f"expected names of resources as keys, got {fields.show(name)}")
        elif name.lower() == "memory":
            if (size := fields.size_bytes(mistakes, f"{path}.{name}", amount)) is not None:
                found["memory"] = float(size)
        elif (
            isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < 1e6
        ):
            mistakes.expected(f"{path}.{name}", "an amount, such as 1 or 0.5", amount)
        else:
            found[_RAYS_NAMES.get(name.lower(), name)] = float(amount)
    return found


def _placement(mistakes: Mistakes, path: str, value: Any) -> Placement | None:
    for placement in Placement:
        if value == placement.value:
            return placement
    mistakes.expected(path, '"pack" or "spread"', value)
    return None
