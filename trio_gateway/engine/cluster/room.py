"""Why a cluster has no room for a replica: which resource is missing, and who has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trio_gateway.config.sizes import format_size
from trio_gateway.engine.cluster.serve_state import ServeState

_MEMORY = "memory"


class Usage(msgspec.Struct, frozen=True):
    """Of the cluster's nodes, each by resource: what is in use, and what there is. `is_growing`:
    nodes are on their way."""

    nodes: tuple[Mapping[str, tuple[float, float]], ...]
    is_growing: bool = False


def usage_of(answer: Any) -> Usage | None:
    """From the answer to `GET /api/cluster_status`; None: it does not say."""
    match answer:
        case {
            "data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": dict(by_node)}} as c}
        }:
            report = c.get("autoscalerReport") or {}
            growing = bool(report.get("pendingNodes") or report.get("pendingLaunches"))
            nodes = [_node(node) for node in by_node.values() if isinstance(node, dict)]
            return Usage(tuple(nodes), growing)
    return None


def _node(node: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    found = {}
    for name, amounts in node.items():
        match amounts:
            case [int() | float() as used, int() | float() as total]:
                found[name] = (float(used), float(total))
    return found


def no_room(needs: Mapping[str, float], usage: Usage, state: ServeState) -> str | None:
    """The sentence; None: a node has room."""
    wanted = {name: amount for name, amount in needs.items() if amount > 0}
    if any(_fits(wanted, node) for node in usage.nodes):
        return None
    lacks = [_lack(name, amount, usage, state) for name, amount in wanted.items()]
    missing = [lack for lack in lacks if lack is not None]
    if not missing:  # each of them is free somewhere
        asked = " and ".join(_amount(name, amount) for name, amount in wanted.items())
        missing = [f"no node has {asked} free together"]
    return f"the cluster has no room for a replica: {'; '.join(missing)}"


def _fits(wanted: Mapping[str, float], node: Mapping[str, tuple[float, float]]) -> bool:
    return all(_free(node, name) + 1e-9 >= amount for name, amount in wanted.items())


def _of(node: Mapping[str, tuple[float, float]], name: str) -> tuple[float, float]:
    """Used, and in all. The interface writes `my_card` as `myCard`."""
    first, *others = name.split("_")
    return node.get(name) or node.get(first + "".join(map(str.title, others)), (0.0, 0.0))


def _free(node: Mapping[str, tuple[float, float]], name: str) -> float:
    used, total = _of(node, name)
    return total - used


def _lack(name: str, amount: float, usage: Usage, state: ServeState) -> str | None:
    if any(_free(node, name) + 1e-9 >= amount for node in usage.nodes):
        return None
    most = max((_of(node, name)[1] for node in usage.nodes), default=0.0)
    if most < amount:
        largest = f"the largest node has {_amount(name, most)}" if most else "no node has any"
        return f"it needs {_amount(name, amount)}, and {largest}"
    free = max(_free(node, name) for node in usage.nodes)
    holders = [f"{who} has {_amount(name, held)}" for who, held in state.holders(name)]
    by_whom = f" ({', '.join(holders)})" if holders else ""
    rest = f"no node has more than {_amount(name, free)} free{by_whom}"
    return f"it needs {_amount(name, amount)}, and {rest}"


def _amount(name: str, amount: float) -> str:
    return f"{format_size(int(amount))} of memory" if name == _MEMORY else f"{amount:g} {name}"
