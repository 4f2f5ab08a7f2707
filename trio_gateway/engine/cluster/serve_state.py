"""What Ray Serve says of its applications, and what it is told so that ours are others. Pure.

Serve has one interface for all applications: the whole target state is written at once. So it is
read, ours are changed in it, and it is written with everybody else's as they were.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

_Kind = TypeVar("_Kind", bound=enum.Enum)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What stands there in place of a value for those who may not see it.
_HIDDEN = "<redacted>"
_CARRIED_OVER = ("proxy_location", "http_options", "grpc_options", "target_capacity")
DEFAULT_PORT = 8000


class Status(enum.Enum):
    """Of an application; ABSENT and OTHER are ours."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"
    ABSENT = ""
    OTHER = "?"


class Source(enum.Enum):
    """How an application was deployed; those of the others are not part of what is written."""

    DECLARATIVE = "declarative"
    OTHER = "?"


class Unwritable(Exception):
    """The state cannot be written without harm to others' applications; the text says why."""


class _Replica(msgspec.Struct):
    state: str = ""
    pid: int | None = None


class _Deployment(msgspec.Struct):
    message: str = ""
    replicas: list[_Replica] = []
    required_resources: dict[str, float] | None = None


class _Application(msgspec.Struct):
    status: str = ""
    message: str = ""
    source: str | None = None
    deployed_app_config: dict[str, Any] | None = None
    deployments: dict[str, _Deployment] = {}


class _Details(msgspec.Struct):
    applications: dict[str, _Application] = {}
    proxy_location: str | None = None
    http_options: dict[str, Any] | None = None
    grpc_options: dict[str, Any] | None = None
    target_capacity: float | None = None


class Standing(msgspec.Struct, frozen=True):
    """How one application stands. `running`, `starting`: replicas; `placed`: of the latter, those
    that a node has room for. `needs`: what a replica takes. `message`: what Serve says of it."""

    status: Status
    message: str = ""
    running: int = 0
    starting: int = 0
    placed: int = 0
    needs: Mapping[str, float] = {}

    @property
    def lines(self) -> list[str]:
        """Of the message, without colours."""
        return [line for line in _COLOURS.sub("", self.message).splitlines() if line.strip()]


class ServeState:
    """As one answer to `GET /api/serve/applications/` has it.

    Raises:
        ValueError: it is no such answer.
    """

    def __init__(self, answer: bytes) -> None:
        try:
            self._details = msgspec.json.decode(answer, type=_Details, strict=False)
        except msgspec.DecodeError as error:
            raise ValueError(f"its answer is not what Ray Serve says: {error}") from error

    @property
    def names(self) -> list[str]:
        return [*self._details.applications]

    def of(self, begin: str) -> list[str]:
        """The names that begin so, of those that are not on their way out."""
        return [
            name
            for name in self.names
            if name.startswith(begin) and self.standing(name).status is not Status.DELETING
        ]

    @property
    def http_port(self) -> int:
        port = (self._details.http_options or {}).get("port")
        return port if isinstance(port, int) else DEFAULT_PORT

    @property
    def is_clearing(self) -> bool:
        """Whether some application is on its way out, whose room will be free."""
        return any(self.standing(name).status is Status.DELETING for name in self.names)

    def standing(self, name: str) -> Standing:
        found = self._details.applications.get(name)
        if found is None:
            return Standing(Status.ABSENT)
        replicas = [r for d in found.deployments.values() for r in d.replicas]
        starting = [r for r in replicas if r.state in ("STARTING", "PENDING_MIGRATION")]
        deployments = [*found.deployments.values()]
        return Standing(
            status=_kind(Status, found.status, Status.OTHER),
            message="\n".join(filter(None, [found.message, *(d.message for d in deployments)])),
            running=sum(r.state == "RUNNING" for r in replicas),
            starting=len(starting),
            placed=sum(r.pid is not None for r in starting),
            needs=next((d.required_resources for d in deployments if d.required_resources), {}),
        )

    def holders(self, resource: str) -> Iterator[tuple[str, float]]:
        """Who has how much of a resource of the cluster."""
        for name, application in self._details.applications.items():
            held = sum(
                (d.required_resources or {}).get(resource, 0.0)
                for d in application.deployments.values()
                for replica in d.replicas
                if replica.pid is not None
            )
            if held:
                yield name, held

    def changed(
        self, add: Mapping[str, Mapping[str, Any]], remove: Collection[str]
    ) -> dict[str, Any]:
        """What is to be written, so that these are there, by name, and those are not.

        Raises:
            Unwritable
        """
        kept = []
        for name, application in self._details.applications.items():
            status = _kind(Status, application.status, Status.OTHER)
            source = _kind(Source, application.source or "", Source.OTHER)
            if name in add or name in remove or status is Status.DELETING:
                continue
            config = application.deployed_app_config
            if config is None:
                if source is Source.DECLARATIVE:  # left out, it would be taken away
                    raise Unwritable(f"Ray Serve does not say yet how {name} is configured")
                continue
            if _HIDDEN in _texts(config):
                raise Unwritable(
                    f"the cluster shows {_HIDDEN} in place of what {name} has in its environment, "
                    "and to write that back would break it"
                )
            kept.append(config)
        over = {name: getattr(self._details, name) for name in _CARRIED_OVER}
        told = {name: value for name, value in over.items() if value is not None}
        return {**told, "applications": [*kept, *(dict(config) for config in add.values())]}


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)


def _kind(kinds: type[_Kind], value: str, other: _Kind) -> _Kind:
    try:
        return kinds(value)
    except ValueError:
        return other
