"""EngineKind: what the gateway knows about a type of engine before one runs."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts


def local_host(host: str) -> str:
    """One spelling of an address of this machine, one that a client can connect to."""
    return {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)


class EngineKind(abc.ABC):
    """Knows how engines of one type are launched, and opens clients for them. It has no state.

    `endpoints`: paths that such engines serve, without the leading slash and `v1/`, as in
    ENDPOINT_NAMES.
    `has_slots`: they can save and restore KV caches.
    """

    endpoints: frozenset[str]
    has_slots: bool = False

    @abc.abstractmethod
    def client(self, base_url: str, options: EngineOptions) -> EngineClient:
        """What speaks to one running engine at `base_url` (`http://host:port`).

        Raises:
            OSError: a file that the options name cannot be used.
        """

    @abc.abstractmethod
    def launch_args(self, args: Sequence[str], host: str, port: int) -> list[str]:
        """The arguments that make the engine listen at this address."""

    @abc.abstractmethod
    def listen_host(self, args: EngineArgs) -> str:
        """Where on this machine an engine with these arguments is reached."""

    @abc.abstractmethod
    def fixed_address(self, args: EngineArgs) -> tuple[str, int] | None:
        """The address that the arguments themselves ask for, if they name a port."""

    def path_prefix(self, args: EngineArgs) -> str:
        """What stands before all paths of an engine with these arguments; `client` gets it as the
        path of its base URL."""
        return ""

    def context_cure(
        self, declared: int, args: EngineArgs, facts: EngineFacts, shared_tokens: int | None
    ) -> str:
        """What to do if one request gets fewer tokens than the variant declares."""
        return "raise it in the engine's own arguments, or lower the variant's `context`"

    def shared_tokens(self, args: EngineArgs, facts: EngineFacts) -> int | None:
        """Tokens that all requests of an engine with these arguments share; None: each slot has
        its own context."""
        return None

    def with_prompts_in_slots(self, variant: VariantConfig) -> VariantConfig:
        """The variant, so that its engine keeps no prompt anywhere but in its slots."""
        return variant

    def keeps_prompts_in_slots(self, variant: VariantConfig) -> bool:
        """Whether that is sure to have this effect."""
        return False

    def carryover_fault(self, args: EngineArgs) -> str | None:
        """Why no slot of an engine with these arguments may be restored, if so."""
        return None

    def slot_folder(self, args: EngineArgs) -> str | None:
        """Where an engine with these arguments keeps saved slots; None: nowhere."""
        return None

    def slot_folder_args(self, binary: str, folder: str) -> list[str]:
        """Arguments that make an engine keep saved slots there; none if it cannot."""
        return []
