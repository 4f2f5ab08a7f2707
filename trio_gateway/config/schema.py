"""What a checked configuration is: frozen structs, one per Lua table, with their defaults.

Times are seconds (`_s`), sizes are bytes (`_bytes`), contexts are tokens. The keys that a
configuration file uses, and what it may write there, are in the readers of `config/reading/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.config.access_schema import (
    AccessConfig,
    ConnectionLimits,
    TlsConfig,
    UnixAddress,
)
from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.engine_args import EngineArgs, runs_elsewhere
from trio_gateway.config.engine_options import EngineOptions as EngineOptions
from trio_gateway.config.engine_options import EngineTimeouts as EngineTimeouts
from trio_gateway.config.engine_types import EngineType
from trio_gateway.config.history_schema import HistoryConfig
from trio_gateway.config.keepalive import KeepaliveStyle, LoadingState
from trio_gateway.config.peer_schema import PeerConfig as PeerConfig
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.secret import Secret as Secret

DEFAULT_PORT = 7777
NEVER = float("inf")  # seconds

# Of many clients; Claude Code's, Codex's (both), opencode's (two), Open WebUI's.
SESSION_HEADERS = (
    "x-session-id", "x-litellm-session-id", "x-claude-code-session-id", "session-id", "session_id",
    "x-opencode-session", "x-session-affinity", "x-openwebui-chat-id",
)  # fmt: skip


class ListenAddress(msgspec.Struct, frozen=True):
    """One socket to listen on. `host` has no brackets; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return self.url_with("http")

    def url_with(self, scheme: str) -> str:
        return f"{scheme}://{self}"

    @property
    def from_here(self) -> ListenAddress:
        """What a client on this machine can use for one that means all addresses."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return ListenAddress(local, self.port)


class TokenizationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to count tokens without an engine: a `llama-tokenize` and what a template adds."""

    binary: str
    base_args: tuple[str, ...] = ("--log-disable", "--stdin", "--ids")
    extra_args: tuple[str, ...] = ()
    extra_tokens_per_message: int = 0
    extra_tokens: int = 0

    @property
    def has_extras(self) -> bool:
        return bool(self.extra_tokens_per_message or self.extra_tokens)


@lru_cache(maxsize=256)  # reading them takes 15 µs, and a list of models does so often
def _read_args(words: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> EngineArgs:
    return EngineArgs(words, dict(variables))


class VariantConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One way to launch a model.

    Without a process (`options.urls` says where the engine is) `binary` and `args` are empty; on a
    cluster (`options.cluster`) they are what runs there.

    `context`: tokens that one request may use, prompt and answer together.
    `connect`: base URL of the engine, or None: the gateway picks a free loopback port.
    `inherits`: variables that its process gets from the gateway's environment, or does not get,
    whatever holds for others.
    `largest_input`: tokens that one input may have, where that is less; None: as many as `context`.
    `gives_token_vectors`: an embedding has a vector for each token, not one for its input.
    `inherited_options`: variables of the gateway's environment that are options to its engine.
    `parallel`: requests at a time, or None: the engine's own `total_slots`.
    `memory_bytes`: as declared. `estimated_memory_bytes`: only where none is declared, the pool
    has a limit, and the engine's GGUF says enough.
    `load_time_s`: from its start until it is ready; a guess until it has been measured.
    `stop_command`: run before SIGTERM. `devices`: of a pool that has some, so many are used.
    """

    name: str
    binary: str
    args: tuple[str, ...]
    context: int
    connect: str | None
    env: Mapping[str, str]
    workdir: Path
    parallel: int | None
    memory_bytes: int | None
    timeouts: EngineTimeouts
    load_time_s: float | None = None
    estimated_memory_bytes: int | None = None
    stop_command: tuple[str, ...] = ()
    options: EngineOptions = EngineOptions()
    inherits: Mapping[str, bool] = {}
    inherited_options: Mapping[str, str] = {}
    largest_input: int | None = None
    gives_token_vectors: bool = False
    devices: int = 1

    @property
    def holds(self) -> int:
        """Tokens of the largest request that can be served."""
        return self.context if self.largest_input is None else self.largest_input

    @property
    def engine_args(self) -> EngineArgs:
        """The options that its engine gets, by whatever way."""
        if runs_elsewhere(self.binary):
            return _read_args(self.args, ())
        return _read_args(self.args, (*self.inherited_options.items(), *self.env.items()))

    @property
    def has_process(self) -> bool:
        return not self.options.urls and self.options.cluster is None

    @property
    def expected_memory_bytes(self) -> int | None:
        """What it is expected to need before it has been measured; None if nothing is known."""
        return self.estimated_memory_bytes if self.memory_bytes is None else self.memory_bytes


class RewriteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of requests that are changed on their way to the engine; values are JSON texts.

    `set`: whatever the client sent. `default`: where it sent none. `remove`: not passed on.
    `constant_billing_line`: see ModelConfig; None: as its engine wants it.
    """

    set: Mapping[str, bytes] = {}
    default: Mapping[str, bytes] = {}
    remove: tuple[str, ...] = ()
    constant_billing_line: bool | None = None


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A named entry; `variants` are sorted by context, the smallest first.

    `image_tokens`: what one image costs at most. `clamp_answer`: an answer's maximum that is too
    large is lowered instead of refused; None: where it is a ceiling. `min_answer_tokens`: what an
    answer without a maximum gets at least; None: 512, but no more than a quarter of the largest
    context. `headroom`: the share of the need that an engine gets on top when it is started.
    `kv_carryover`: the KV cache is kept across a stop. `kv_conversations`: how many conversations
    take turns on one slot, 0: none. `endpoints`: what its engines serve, or None: what their type
    implies. `longest_answer_s`: an answer ends after this long if others wait; None: as its pool
    has it. `loading_state` None: as the server has it. `preload`: loaded at the start.
    `discovered`: its table is of `discover`, and it gives way where it stands in the way.
    `peer`: the entry by which it came from another gateway, which knows its `capabilities`.
    """

    name: str
    aliases: tuple[str, ...]
    engine: EngineType
    pool: str
    variants: tuple[VariantConfig, ...]
    tokenization: TokenizationConfig | None = None
    pinned: bool = False
    preload: bool = False
    hidden: bool = False
    description: str = ""
    image_tokens: int = 1024
    clamp_answer: bool | None = None
    min_answer_tokens: int | None = None
    headroom: float = 0.1
    longest_answer_s: float | None = None
    kv_carryover: bool = True
    kv_conversations: int = 0
    rewrite: RewriteConfig | None = None
    endpoints: frozenset[str] | None = None
    loading_state: LoadingState | None = None
    discovered: bool = False
    peer: str | None = None
    capabilities: frozenset[str] | None = None

    @property
    def largest_context(self) -> int:
        return max(variant.holds for variant in self.variants)

    @property
    def constant_billing_line(self) -> bool:
        """Whether the line that Claude Code puts before its system text is made constant, so that
        engines find the rest in their caches. A remote may be Anthropic, whose line it is."""
        chosen = None if self.rewrite is None else self.rewrite.constant_billing_line
        return self.engine.is_ours if chosen is None else chosen


class KvCarryoverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where KV caches are kept while their engine is stopped.

    `directory` None: a private one in the user's cache folder. `persist`: also across a restart of
    the gateway.
    """

    directory: Path | None = None
    max_bytes: int = 4 * 1024**3
    persist: bool = False


class TracesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans of requests go: a collector for OTLP over HTTP. `headers` are sent along.
    `sample`: the share of requests whose client does not say whether they are traced."""

    endpoint: str
    headers: Mapping[str, Secret] = {}
    sample: float = 1.0


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The table `server`. `kv_carryover`, `traces` None: switched off.

    `default_answer_tokens`: tokens reserved for an answer without a maximum; None: what the
    model's answers have shown, and at least its `min_answer_tokens`. `max_buffered_bytes`,
    `max_spooled_bytes`: what all requests may hold at a time in memory, and in files; None: as
    `server/budget.py` says. `session_headers`: they tell requests of one conversation; the first
    of them that a request has counts. `preload`: names of models, as in requests, that are loaded
    at the start.
    """

    listen: tuple[ListenAddress, ...] = (ListenAddress("127.0.0.1", DEFAULT_PORT),)
    timeouts: EngineTimeouts = EngineTimeouts()
    shutdown_grace_s: float = 5.0
    dumps_dir: Path | None = None
    clear_dumps_on_start: bool = False
    max_body_bytes: int = 100 * 1024**2
    max_buffered_bytes: int | None = None
    max_spooled_bytes: int | None = None
    default_answer_tokens: int | None = None
    queue_limit: int = 256
    queue_timeout_s: float = 600.0
    fairness_window_s: float = 10.0
    stream_keepalive_s: float = 15.0
    stream_keepalive_style: KeepaliveStyle = KeepaliveStyle.COMMENT
    loading_state: LoadingState = LoadingState.NONE
    kv_carryover: KvCarryoverConfig | None = KvCarryoverConfig()
    listen_unix: tuple[UnixAddress, ...] = ()
    access: AccessConfig = AccessConfig()
    tls: TlsConfig | None = None
    limits: ConnectionLimits = ConnectionLimits()
    share_prefixes: bool = False
    hide_cached_tokens: bool = False
    cache_break_excerpts: bool = True
    session_headers: tuple[str, ...] = SESSION_HEADERS
    history: HistoryConfig = HistoryConfig()
    traces: TracesConfig | None = None
    page: bool = True
    preload: tuple[str, ...] = ()

    @property
    def keeps_owners_apart(self) -> bool:
        """Whether what one API key's prompts left in an engine's cache is for that key only; of a
        key that forwards, for one person behind it only."""
        keys = self.access.api_keys
        has_several = len(keys) > 1 or any(key.forwards for key in keys)
        return has_several and not self.share_prefixes


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A whole checked configuration. `notes` are remarks for the log, one line each.
    `secret_variables`: those of the environment that have keys in them, which the file has read.
    `files`: `source`, and what it includes. `watched`: folders and files in which `discover` has
    looked for models. `choices`: among models that there are; `written_choices` name those of other
    gateways as well, which may come.
    """

    source: Path
    server: ServerConfig
    models: tuple[ModelConfig, ...]
    pools: Mapping[str, PoolConfig]
    peers: tuple[PeerConfig, ...] = ()
    choices: tuple[ChoiceConfig, ...] = ()
    written_choices: tuple[ChoiceConfig, ...] = ()
    notes: tuple[str, ...] = ()
    secret_variables: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    watched: tuple[Path, ...] = ()
