"""Engines on a Ray cluster, through Ray Serve: llama-servers, and others with OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import trio

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.engine.clients.client import NO_OPTIONS, EngineClient
from trio_gateway.engine.clients.facts import EngineFacts, Health
from trio_gateway.engine.clients.headers import AFFINITY
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine, LlamaCppKind
from trio_gateway.engine.clients.openai import OpenAIEngine, OpenAIKind
from trio_gateway.engine.clients.remote_site import RemoteSite, tls_context
from trio_gateway.engine.http.control import ControlClient
from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.http.idle import KEPT_MAX

# Ray Serve passes its value to `cluster/affinity_router.py`.
SESSION = b"x-session-id"


class RayKind(LlamaCppKind):
    """See EngineKind. Slots are those of several replicas: none can be saved or named."""

    endpoints = (LlamaCppKind.endpoints | OpenAIKind.endpoints) - {"realtime", "slots/{slot}"}
    has_slots = False

    def client(self, base_url: str, options: EngineOptions) -> OnCluster:
        assert options.cluster is not None, "it runs on a cluster"
        if options.cluster.is_llama_server:
            return LlamaCppOnCluster(base_url, options)
        return OpenAIOnCluster(base_url, options)

    def fixed_address(self, args: EngineArgs) -> tuple[str, int] | None:
        return None  # what the arguments say is about the nodes

    def path_prefix(self, args: EngineArgs) -> str:
        return ""

    def with_prompts_in_slots(self, variant: VariantConfig) -> VariantConfig:
        return variant

    keeps_prompts_in_slots = EngineKind.keeps_prompts_in_slots
    slot_folder = EngineKind.slot_folder
    slot_folder_args = EngineKind.slot_folder_args


class Contact:
    """What is known of an application from the cluster's dashboard, the other way to it.
    `deployed`: Serve has it running. `answers`: the dashboard did when it was asked last."""

    def __init__(self) -> None:
        self.deployed = trio.Event()
        self.answers = True


class OnCluster(EngineClient):
    """What reaches an engine through Ray Serve's proxy. `contact`: what else is known of it.

    Raises:
        OSError: `ca_file` cannot be used.
    """

    routes_by_affinity = True
    refusals_max = 1  # the cluster cannot be reached: the next start says why

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        assert options.cluster is not None, "it runs on a cluster"
        self._is_here = False
        self.prefix = urlsplit(base_url).path
        self.contact = Contact()
        tls = tls_context(options) if base_url.startswith("https:") else None
        self._opener = RemoteSite(base_url, tls, options.connect_timeout_s, ())
        headers = [(n.encode(), v.reveal().encode()) for n, v in options.cluster.headers.items()]
        self._own_headers = [*headers, *self._own_headers]
        self._control = ControlClient(self._opener, self._questions, self._own_headers)

    def with_own_headers(self, headers: Sequence[Header]) -> Sequence[Header]:
        told = [(SESSION if name == AFFINITY else name, value) for name, value in headers]
        return super().with_own_headers(told)

    async def check_health(self, timeout_s: float) -> Health:
        """Once it is deployed, Serve looks after its replicas: one that does not answer is replaced
        there, and is no reason to give all of it up. If the dashboard is silent as well, it is."""
        if not self.contact.deployed.is_set():
            return Health(False, "Ray Serve has not deployed it yet")
        health = await super().check_health(timeout_s)
        silent = health.silent and not self.contact.answers
        return Health(health.ok, health.detail, silent=silent, refused=health.refused)


class LlamaCppOnCluster(OnCluster, LlamaCppEngine):
    """A llama-server."""

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        facts = await super().read_facts(timeout_s)
        self.idle.most = KEPT_MAX  # those of one replica are not all
        return facts


class OpenAIOnCluster(OnCluster, OpenAIEngine):
    """Any other server with OpenAI's API."""
