"""The registry of engine types: one line each. See docs/engines.md for how to write one.

The class is named as text: the configuration knows no engine, and what no model uses is not loaded.
"""

from __future__ import annotations

import enum

import msgspec

# The paths of an API that engines may serve, without the leading slash and `v1/`.
ENDPOINT_NAMES = frozenset(
    {
        # OpenAI's
        "chat/completions", "completions", "embeddings", "responses",
        "audio/speech", "audio/transcriptions", "audio/translations",
        "images/generations", "images/edits", "realtime",
        # llama.cpp's
        "chat/completions/input_tokens", "completion", "infill", "tokenize", "detokenize",
        "apply-template", "rerank", "embedding", "props", "slots", "slots/{slot}", "lora-adapters",
        "responses/input_tokens",
        # Anthropic's
        "messages", "messages/count_tokens",
    }
)  # fmt: skip

UNLIMITED_ENGINES = 1_000_000  # of engines without a process: nothing here bounds them


class Option(enum.Enum):
    """Keys of a model or variant that only some types have; see config/reading/engine_keys.py."""

    SERVED_NAME = "served_name"
    HEALTH_PATH = "health_path"
    API_KEY = "api_key"
    URLS = "urls"
    BALANCE = "balance"
    CA_FILE = "ca_file"
    VERIFY_TLS = "verify_tls"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    HEALTH_INTERVAL = "health_interval"
    GATEWAY = "gateway"
    WAKE = "wake"
    WAKE_COMMAND = "wake_command"
    WAKE_TIMEOUT = "wake_timeout"
    CLUSTER = "address"  # and those that go with it: config/reading/cluster.py


class EngineType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of engine.

    `value`: what a configuration says, by `presets.engines.<preset>`. `kind`: `"module:Class"`,
    an EngineKind. `options`: the keys that only some types have. `has_process`: it is started by
    a command; otherwise it is somewhere else, at its `urls`, or `on_cluster`, where its command is
    run for us. `needs_port`: its arguments must say
    where it listens, as nothing is added to them. `slots`: requests at a time where neither
    `parallel` nor the engine says it. `key_variables`: those of the environment from which its
    engines take the key that they ask for. `has_server_options`: its arguments are llama-server's.
    """

    value: str
    preset: str
    kind: str
    options: frozenset[Option] = frozenset()
    default_pool: str = "primary"
    has_process: bool = True
    on_cluster: bool = False
    needs_port: bool = False
    slots: int | None = None
    key_variables: tuple[str, ...] = ()
    has_server_options: bool = False

    @property
    def is_ours(self) -> bool:
        """Its engines run only for this gateway."""
        return self.has_process or self.on_cluster


_LLAMACPP = frozenset({Option.API_KEY})
_OPENAI = frozenset({Option.SERVED_NAME, Option.HEALTH_PATH, Option.API_KEY})
_NETWORK = frozenset({Option.CA_FILE, Option.VERIFY_TLS, Option.CONNECT_TIMEOUT})
_CLIENTS = "trio_gateway.engine.clients"

ENGINE_TYPES = {
    known.value: known
    for known in (
        EngineType(
            value="llama.cpp",
            preset="llamacpp",
            kind=f"{_CLIENTS}.llamacpp:LlamaCppKind",
            options=_LLAMACPP,
            key_variables=("LLAMA_API_KEY",),
            has_server_options=True,
        ),
        EngineType(
            value="llama.cpp.secondary",
            preset="llamacpp_secondary",
            kind=f"{_CLIENTS}.llamacpp:LlamaCppKind",
            options=_LLAMACPP,
            key_variables=("LLAMA_API_KEY",),
            has_server_options=True,
            default_pool="secondary",
        ),
        EngineType(
            value="openai",
            preset="openai",
            kind=f"{_CLIENTS}.openai:OpenAIKind",
            options=_OPENAI,
            needs_port=True,
            slots=8,
            key_variables=("VLLM_API_KEY", "LLAMA_API_KEY"),
        ),
        EngineType(
            value="remote",
            preset="remote",
            kind=f"{_CLIENTS}.remote:RemoteKind",
            options=frozenset(Option) - {Option.CLUSTER},
            default_pool="remote",
            has_process=False,
            slots=64,
        ),
        EngineType(
            value="ray",
            preset="ray",
            kind=f"{_CLIENTS}.ray:RayKind",
            options=_OPENAI | _NETWORK | {Option.CLUSTER},
            default_pool="ray",
            has_process=False,
            on_cluster=True,
        ),
    )
}

LLAMACPP = ENGINE_TYPES["llama.cpp"]
