"""Permissions: what a request's key allows, as the guard puts it into the scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trio_gateway.config.priority import Priority
from trio_gateway.server.api.errors import ApiError

PERMISSIONS_KEY = "trio_gateway.permissions"


class Permissions(NamedTuple):
    """What a request may do. `key`: the name of its key, None where the gateway has no keys.

    `metrics`: it may scrape them, as an admin may. `priority` is the request's own, and the most
    that it can ask for. `models` None: all. `person`: for whom it is asked, as the gateway says
    whose key this is.
    """

    key: str | None
    priority: Priority = Priority.INTERACTIVE
    models: frozenset[str] | None = None
    admin: bool = False
    metrics: bool = False
    person: str | None = None

    @property
    def client(self) -> str | None:
        """Who asks, for those who share engines fairly or look on; None: no key tells."""
        return self.key if self.person is None else f"{self.key}/{self.person}"

    @property
    def owner(self) -> str:
        """Whose prompts these are; empty where there are no keys. A key's name may have any
        visible character in it, so that none is taken for a person behind another key."""
        return self.key or "" if self.person is None else f"{self.key}\0{self.person}"

    def allows(self, model_name: str) -> bool:
        """Whether it may use the model of this name (`ModelConfig.name`, no alias)."""
        return self.models is None or model_name in self.models

    def priority_of(self, asked: Priority | None) -> Priority:
        """A header may lower the priority, not raise it."""
        return self.priority if asked is None else max(asked, self.priority)


EVERYTHING = Permissions(None, admin=True)
NOTHING = Permissions(None, models=frozenset())


def permissions_of(scope: Mapping[str, Any]) -> Permissions:
    """What the guard decided for this request."""
    permissions: Permissions = scope[PERMISSIONS_KEY]
    return permissions


def model_not_allowed(permissions: Permissions, model_name: str) -> ApiError:
    message = (
        f'the API key "{permissions.key}" may not use {model_name}; '
        "GET /v1/models lists the models that it may use"
    )
    return ApiError(403, message, "permission_error", code="model_not_allowed", param="model")
