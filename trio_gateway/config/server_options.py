"""llama-server's options, as far as the gateway looks at them: their spellings and variables.

From `common/arg.cpp` of llama.cpp, October 2026, and what builds of the two years before called
them. Pure.
"""

from __future__ import annotations

import enum

import msgspec


class Takes(enum.Enum):
    """What stands behind an option."""

    NOTHING = 0
    VALUE = 1
    TWO_VALUES = 2


class ServerOption(msgspec.Struct, frozen=True, eq=False):
    """One option. `spellings`: with `-` for `_`. `variables`: of the environment, that say the
    same. `negations`: spellings that switch it off; each variable `LLAMA_ARG_X` has a sister
    `LLAMA_ARG_NO_X` then, which does the same, whatever its value."""

    spellings: tuple[str, ...]
    variables: tuple[str, ...] = ()
    takes: Takes = Takes.VALUE
    negations: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages: a long one."""
        return next(s for s in self.spellings if s.startswith("--"))


class Given(msgspec.Struct, frozen=True):
    """An option as an engine gets it. `how`: the spelling, or the variable. `value` None: it takes
    none, or it is missing."""

    option: ServerOption
    how: str
    value: str | None = None
    is_on: bool = True


def _value(*spellings: str, env: str = "", older: str = "") -> ServerOption:
    return ServerOption(spellings, tuple(f"LLAMA_ARG_{name}" for name in (env, older) if name))


def _flag(*spellings: str, env: str = "") -> ServerOption:
    return ServerOption(spellings, (f"LLAMA_ARG_{env}",) if env else (), Takes.NOTHING)


def _switch(*spellings: str, off: tuple[str, ...], env: str = "") -> ServerOption:
    return ServerOption(spellings, (f"LLAMA_ARG_{env}",) if env else (), Takes.NOTHING, off)


# Which model, and from where.
MODEL = _value("-m", "--model", env="MODEL")
MODEL_URL = _value("-mu", "--model-url", env="MODEL_URL")
HF_REPO = _value("-hf", "-hfr", "--hf-repo", env="HF_REPO")
HF_FILE = _value("-hff", "--hf-file", env="HF_FILE")
DOCKER_REPO = _value("-dr", "--docker-repo", env="DOCKER_REPO")
ALIAS = _value("-a", "--alias", env="ALIAS")
LORA = _value("--lora")
LORA_SCALED = _value("--lora-scaled")
OVERRIDE_KV = _value("--override-kv")
PROJECTOR = _value("-mm", "--mmproj", env="MMPROJ")
PROJECTOR_URL = _value("-mmu", "--mmproj-url", env="MMPROJ_URL")
PROJECTOR_AUTO = _switch(
    "--mmproj-auto", off=("--no-mmproj", "--no-mmproj-auto"), env="MMPROJ_AUTO"
)
DRAFT = _value(
    "-md", "--model-draft", "--spec-draft-model", env="SPEC_DRAFT_MODEL", older="MODEL_DRAFT"
)

# How much of it is where, and its cache.
CONTEXT = _value("-c", "--ctx-size", env="CTX_SIZE")
CONTEXT_PER_SLOT = _value("--kv-unified-per-slot", env="KV_UNIFIED_PER_SLOT")
PARALLEL = _value("-np", "--parallel", env="N_PARALLEL")
UNIFIED_KV = _switch("-kvu", "--kv-unified", off=("-no-kvu", "--no-kv-unified"), env="KV_UNIFIED")
BATCH = _value("-b", "--batch-size", env="BATCH")
PHYSICAL_BATCH = _value("-ub", "--ubatch-size", env="UBATCH")
CACHE_TYPE_K = _value("-ctk", "--cache-type-k", env="CACHE_TYPE_K")
CACHE_TYPE_V = _value("-ctv", "--cache-type-v", env="CACHE_TYPE_V")
SWA_FULL = _flag("--swa-full", env="SWA_FULL")
CHECKPOINTS = _value("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints", env="CTX_CHECKPOINTS")
CACHE_RAM = _value("-cram", "--cache-ram", env="CACHE_RAM")
THREADS = _value("-t", "--threads", env="THREADS")
GPU_LAYERS = _value("-ngl", "--gpu-layers", "--n-gpu-layers", env="N_GPU_LAYERS")
CPU_EXPERTS = _flag("-cmoe", "--cpu-moe", env="CPU_MOE")
CPU_EXPERT_LAYERS = _value("-ncmoe", "--n-cpu-moe", env="N_CPU_MOE")
CPU_FFN_LAYERS = _value("-ncffn", "--n-cpu-ffn", env="N_CPU_FFN")
OVERRIDE_TENSOR = _value("-ot", "--override-tensor", env="OVERRIDE_TENSOR")
KV_OFFLOAD = _switch("-kvo", "--kv-offload", off=("-nkvo", "--no-kv-offload"), env="KV_OFFLOAD")

# What it serves, and how a prompt becomes of a chat.
EMBEDDING = _flag("--embedding", "--embeddings", env="EMBEDDINGS")
RERANKING = _flag("--rerank", "--reranking", env="RERANKING")
POOLING = _value("--pooling", env="POOLING")
ATTENTION = _value("--attention")
CHAT_TEMPLATE = _value("--chat-template", env="CHAT_TEMPLATE")
CHAT_TEMPLATE_FILE = _value("--chat-template-file", env="CHAT_TEMPLATE_FILE")
CHAT_TEMPLATE_KWARGS = _value("--chat-template-kwargs", env="CHAT_TEMPLATE_KWARGS")
JINJA = _switch("--jinja", off=("--no-jinja",), env="JINJA")
REASONING = _value("-rea", "--reasoning", env="REASONING")
REASONING_FORMAT = _value("--reasoning-format", env="THINK")
REASONING_EFFORT = _value("--reasoning-effort", env="REASONING_EFFORT")
REASONING_BUDGET = _value("--reasoning-budget", env="THINK_BUDGET")
REASONING_PRESERVE = _switch(
    "--reasoning-preserve", off=("--no-reasoning-preserve",), env="REASONING_PRESERVE"
)
SKIP_CHAT_PARSING = _switch(
    "--skip-chat-parsing", off=("--no-skip-chat-parsing",), env="SKIP_CHAT_PARSING"
)

# Where and how it is reached.
HOST = _value("--host", env="HOST")
PORT = _value("--port", env="PORT")
API_PREFIX = _value("--api-prefix", env="API_PREFIX")
API_KEY = ServerOption(("--api-key",), ("LLAMA_API_KEY",))
API_KEY_FILE = _value("--api-key-file", env="API_KEY_FILE")
TLS_KEY = _value("--ssl-key-file", env="SSL_KEY_FILE")
TLS_CERTIFICATE = _value("--ssl-cert-file", env="SSL_CERT_FILE")
SLOTS_ENDPOINT = _switch("--slots", off=("--no-slots",), env="ENDPOINT_SLOTS")
SLOT_SAVE_PATH = _value("--slot-save-path")
SLEEP_IDLE = _value("--sleep-idle-seconds")

# Those whose value could be taken for an option of the table if nobody knew that it is one.
_OTHERS = (
    *(
        ServerOption((spelling,))
        for spelling in (
            "-tb", "--threads-batch", "-n", "--predict", "--n-predict", "--keep",
            "-cms", "--checkpoint-min-step", "-fa", "--flash-attn", "-s", "--seed", "--temp",
            "--temperature", "--top-k", "--top-p", "--min-p", "-p", "--prompt", "-f", "--file",
            "-r", "--reverse-prompt", "--grammar", "--grammar-file", "-j", "--json-schema", "-jf",
            "--json-schema-file", "--samplers", "--rope-scaling", "--rope-scale", "--tags", "-hft",
            "--rope-freq-base", "--rope-freq-scale", "--hf-token", "--path", "--ui-config",
            "--webui-config", "-to", "--timeout", "--threads-http", "--cache-reuse", "--numa",
            "--media-path", "--models-dir", "--models-preset", "--models-max", "-sps",
            "--reasoning-budget-message", "--slot-prompt-similarity", "--log-file", "-lv",
            "--verbosity", "-dev", "--device", "-sm", "--split-mode", "-ts", "--tensor-split",
            "-mg", "--main-gpu", "--cors-origins",
        )
    ),
    ServerOption(("--control-vector-layer-range",), (), Takes.TWO_VALUES),
)  # fmt: skip


def canonical(spelling: str) -> str:
    """As llama-server looks it up."""
    return spelling.replace("_", "-") if spelling.startswith("--") else spelling


def _by_spelling() -> dict[str, tuple[ServerOption, bool]]:
    known = [value for value in globals().values() if isinstance(value, ServerOption)]
    found = {s: (option, True) for option in (*known, *_OTHERS) for s in option.spellings}
    return found | {s: (option, False) for option in known for s in option.negations}


BY_SPELLING = _by_spelling()  # the option, and whether this switches it on
ON = frozenset({"on", "enabled", "true", "1"})
