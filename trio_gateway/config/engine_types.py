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
    CA_FILE = "ca_file"
    VERIFY_TLS = "verify_tls"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    HEALTH_INTERVAL = "health_interval"


class EngineType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of engine.

    `value`: what a configuration says, by `presets.engines.<preset>`. `kind`: `"module:Class"`,
    an EngineKind. `options`: the keys that only some types have. `has_process`: it is started by
    a command; otherwise it is somewhere else, at its `urls`. `needs_port`: its arguments must say
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
    needs_port: bool = False
    slots: int | None = None
    key_variables: tuple[str, ...] = ()
    has_server_options: bool = False


_LLAMACPP = frozenset({Option.API_KEY})
_OPENAI = frozenset({Option.SERVED_NAME, Option.HEALTH_PATH, Option.API_KEY})
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
            options=frozenset(Option),
            default_pool="remote",
            has_process=False,
            slots=64,
        ),
    )
}

LLAMACPP = ENGINE_TYPES["llama.cpp"]
