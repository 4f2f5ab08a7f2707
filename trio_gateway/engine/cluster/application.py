"""A variant as an application of Ray Serve: its name, and what Serve is told of it. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from trio_gateway.config.cluster_schema import ClusterOptions, Placement
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import VariantConfig
from trio_gateway.config.server_options import HOST, PORT
from trio_gateway.engine.scheduling.events import VariantKey

IMPORT_PATH = "trio_gateway.cluster.replica:build"
ROUTER = "trio_gateway.cluster.affinity_router:AffinityRouter"
DEPLOYMENT = "engine"  # the one of each application
OURS = "trio-gateway-"  # how the names of all gateways' applications begin
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.]+")
_LONGEST_PART = 40  # characters
# Serve passes so many more on than there are slots: the gateway's questions need no slot.
QUESTIONS = 8
# Of an engine's places, the share that is busy when another replica is wanted: with all of them
# busy it is, with half of them it is not.
BUSY_SHARE = 0.8
DEFAULT_SLOTS = 4  # a llama-server's own
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 2.0, 15.0
# A replica ends its engine within ten seconds, and Serve kills one that takes longer.
STOP_TIMEOUT_S = 15.0
UPSCALE_DELAY_S, DOWNSCALE_DELAY_S = 5.0, 60.0


class Application(msgspec.Struct, frozen=True):
    """`name` has the gateway, the variant and a fingerprint of all that Serve is told of it: one of
    this name is this one, whoever has put it there. `told`: what Serve takes for it."""

    name: str
    told: dict[str, Any]


def owner_of(host: str, source: str) -> str:
    """What tells this gateway's applications from another's: its machine and its configuration."""
    return _digest([host, source], 4)


def names_begin(owner: str) -> str:
    """How the names of this gateway's applications begin."""
    return f"{OURS}{owner}-"


def application_of(owner: str, key: VariantKey, variant: VariantConfig) -> Application:
    cluster = variant.options.cluster
    assert cluster is not None, "it runs on a cluster"
    args = {"command": _command(variant, cluster), "env": dict(variant.env)}
    if (health := variant.options.health_path) is not None:
        args["health"] = health
    told = {
        "import_path": IMPORT_PATH,
        "args": args,
        "deployments": [_deployment(variant, cluster)],
    }
    words = (_word(key.model), _word(key.variant), _digest([*key, told], 6))
    name = names_begin(owner) + "-".join(words)
    return Application(name, {"name": name, "route_prefix": f"/{name}", **told})


def _word(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_PART].strip("_") or "_"


def _digest(value: object, size: int) -> str:
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.blake2b(text, digest_size=size).hexdigest()


def _command(variant: VariantConfig, cluster: ClusterOptions) -> list[str]:
    """With `${PORT}`, which the replica fills in."""
    words = [variant.binary, *variant.args]
    if cluster.is_llama_server:
        given = EngineArgs(variant.args)
        if not given.has(HOST):
            words += [HOST.name, "127.0.0.1"]
        if not given.has(PORT):
            words += [PORT.name, "${PORT}"]
    return words


def slots_of(variant: VariantConfig) -> int:
    """Requests at a time of one replica, as far as its configuration says it."""
    return variant.parallel or variant.engine_args.slots or DEFAULT_SLOTS


def _deployment(variant: VariantConfig, cluster: ClusterOptions) -> dict[str, Any]:
    slots, replicas = slots_of(variant), cluster.replicas
    told: dict[str, Any] = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": slots + QUESTIONS,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": STOP_TIMEOUT_S,
        "ray_actor_options": _actor_options(cluster),
    }
    if replicas.min == replicas.max:
        told["num_replicas"] = replicas.min
    else:
        told["autoscaling_config"] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": round(slots * BUSY_SHARE, 3),
            "upscale_delay_s": UPSCALE_DELAY_S,
            "downscale_delay_s": DOWNSCALE_DELAY_S,
        }
    if replicas.max > 1:
        told["request_router_config"] = {
            "request_router_class": ROUTER,
            "request_router_kwargs": {"places": slots},
        }
    if cluster.placement is Placement.SPREAD:
        told["max_replicas_per_node"] = 1
    return told


def _actor_options(cluster: ClusterOptions) -> dict[str, Any]:
    """Of a replica: the engine is its child, and has what it has."""
    own = dict(cluster.resources)
    options: dict[str, Any] = {"num_cpus": own.pop("CPU", 1.0), "num_gpus": own.pop("GPU", 0.0)}
    if (memory := own.pop("memory", None)) is not None:
        options["memory"] = memory
    if own:
        options["resources"] = own
    return options
