"""Words that people know from other programs or put in the wrong place, and what to write here.

Each maps an unknown key to the end of its error message. What is merely misspelt is not listed:
`fields.nearest` finds that.
"""

from __future__ import annotations

_LUA = "use variables and functions of Lua"
_IN_ARGS = 'use args = { "--model", "…" } in a variant'
_LISTEN = 'use "listen_v4", such as "127.0.0.1:7777"'
_CONTEXT = 'use "context" in a variant, and "--ctx-size" in its args'
_LAYERS = 'use args = { "--gpu-layers", "…" } in a variant'
_VERBOSE = "run `trio-gateway serve --verbose`"
_PRELOAD = 'use preload = { "NAME" } in server, or preload = true in a model'
_IDLE, _STARTUP = 'use "engine_idle_timeout"', 'use "engine_startup_timeout"'

# Tables of their own, which are easily put into another one.
_TOP = dict.fromkeys(("server", "models", "pools", "choices"), "it belongs at the top level")
_SERVER_KEYS = (
    "listen_v4", "listen_v6", "listen_unix", "tls", "api_keys", "allowed_hosts", "allowed_origins",
    "allow_unauthenticated", "dumps_dir", "clear_dumps_on_start", "max_body_size",
    "max_buffered", "max_spooled",
    "default_answer_tokens", "queue_limit", "queue_timeout", "fairness_window", "shutdown_grace",
    "stream_keepalive", "engine_stop_timeout", "history", "traces",
    "preload",
)  # fmt: skip
_MODEL_KEYS = (
    "aliases", "engine", "pool", "pinned", "preload", "hidden", "description", "tokenization",
    "rewrite", "endpoints", "headroom", "clamp_answer", "min_answer_tokens", "image_tokens",
    "kv_carryover", "kv_conversations", "longest_answer", "variants",
)  # fmt: skip
_VARIANT_KEYS = ("binary", "args", "context", "parallel", "env", "workdir", "memory", "load_time")

# What is a global of its own elsewhere (llama-swap), and is in `server` or `pools` here.
GLOBALS = {
    "healthCheckTimeout": 'use "engine_startup_timeout" in server',
    "globalTTL": 'use "engine_idle_timeout" in server',
    **dict.fromkeys(("logLevel", "logRequests", "logToStdout"), _VERBOSE),
    "startPort": "free ports are picked",
    "macros": _LUA,
    **dict.fromkeys(("groups", "matrix"), 'use "pools"'),
    "hooks": _PRELOAD,
    **dict.fromkeys(("selectors", "profiles", "choice"), 'use "choices"'),
    "sendLoadingState": 'use loading_state = "reasoning" in server',
    "apiKeys": 'use "api_keys" in server',
    "peers": 'use models = { { name = "NAME", models = "all", urls = "…" } }',
    **dict.fromkeys(_SERVER_KEYS, "it belongs in server"),
    **dict.fromkeys(("engine_idle_timeout", "engine_startup_timeout"), "it belongs in server"),
}

SERVER = {
    **dict.fromkeys(("listen", "host", "port", "bind", "address"), _LISTEN),
    **dict.fromkeys(("healthCheckTimeout", "startup_timeout"), _STARTUP),
    **dict.fromkeys(("globalTTL", "ttl", "idle_timeout", "keep_alive"), _IDLE),
    **dict.fromkeys(("logLevel", "log_level", "logRequests", "logToStdout"), _VERBOSE),
    **dict.fromkeys(("apiKeys", "api_key", "keys"), 'use "api_keys", an array'),
    **dict.fromkeys(("cors", "cors_origins", "origins"), 'use "allowed_origins"'),
    **dict.fromkeys(("certificate", "cert", "ssl"), "use tls = { certificate = …, key = … }"),
    "startPort": "free ports are picked",
    "macros": _LUA,
    **dict.fromkeys(("groups", "matrix"), 'use "pools", at the top level'),
    "hooks": _PRELOAD,
    "sendLoadingState": 'use loading_state = "reasoning"',
    **_TOP,
}

_ENGINE = {
    **dict.fromkeys(("cmd", "command"), 'use "binary" and "args" in a variant'),
    **dict.fromkeys(("ttl", "idle_timeout", "keep_alive"), _IDLE),
    **dict.fromkeys(("healthCheckTimeout", "startup_timeout"), _STARTUP),
    **dict.fromkeys(("model", "model_path", "path", "file", "gguf"), _IN_ARGS),
    **dict.fromkeys(("ctx", "ctx_size", "n_ctx", "num_ctx", "context_length"), _CONTEXT),
    **dict.fromkeys(("ngl", "n_gpu_layers", "gpu_layers"), _LAYERS),
    **dict.fromkeys(("group", "groups"), 'use "pool" in the model'),
    **dict.fromkeys(("metadata", "title"), 'use "description" in the model'),
    **dict.fromkeys(("url", "base_url"), 'use "connect", or "urls" with presets.engines.remote'),
    "weight": 'use urls = { { url = "…", weight = 2 }, … }',
    **dict.fromkeys(("strategy", "policy", "load_balancing"), 'use "balance", next to "urls"'),
    "cmdStop": 'use "stop_command"',
    **dict.fromkeys(("mac", "wol", "wake_on_lan"), 'use wake = { mac = "…" }'),
    "proxy": 'use "connect"',
    "port": 'use "connect", such as "http://127.0.0.1:8080"; without it a free port is picked',
    "checkEndpoint": 'use "health_path" with presets.engines.openai; llama.cpp needs none',
    "useModelName": 'use "served_name" with presets.engines.openai or presets.engines.remote',
    "unlisted": 'use "hidden" in the model',
    "concurrencyLimit": 'use "parallel" in a variant',
    **dict.fromkeys(("filters", "stripParams", "setParams"), 'use "rewrite" in the model'),
    "sendLoadingState": 'use loading_state = "reasoning"',
    "macros": _LUA,
    "id": 'use "name"',
    **dict.fromkeys(_SERVER_KEYS, "it belongs in server"),
    **_TOP,
}
MODEL = {**_ENGINE, **dict.fromkeys(_VARIANT_KEYS, "it belongs in a variant")}
VARIANT = {**_ENGINE, **dict.fromkeys(_MODEL_KEYS, "it belongs in the model")}

POOL = {
    "members": 'name the pool in each model instead, with "pool"',
    **dict.fromkeys(("swap", "exclusive", "limit"), 'use "engines", how many run at a time'),
    **dict.fromkeys(("vram", "ram", "memory_limit"), 'use "memory"'),
    **dict.fromkeys(("gpus", "gpu", "device"), 'use "devices"'),
    **dict.fromkeys(("headroom", "margin"), 'use "reserve"'),
    "persistent": 'use "pinned" in a model',
}

CHOICE = {
    **dict.fromkeys(("models", "members", "targets"), 'list them: { "qwen3", "gemma" }'),
    **dict.fromkeys(("max_requests", "limit", "parallel"), 'use "spill_after"'),
    **dict.fromkeys(("policy", "mode"), 'use "strategy"'),
    "name": "its name is its key: choices = { NAME = { … } }",
}

API_KEY = {
    **dict.fromkeys(("token", "secret", "value", "hash", "api_key"), 'use "key"'),
    **dict.fromkeys(("user", "client"), 'use "name"'),
    **dict.fromkeys(("role", "is_admin"), 'use "admin"'),
    **dict.fromkeys(("limit", "parallel"), 'use "max_parallel"'),
    **dict.fromkeys(("gateway", "trusted", "forward", "is_gateway"), 'use "forwards"'),
}

TLS = {
    **dict.fromkeys(("cert", "cert_file", "certfile"), 'use "certificate"'),
    **dict.fromkeys(("key_file", "keyfile", "private_key"), 'use "key"'),
}
