"""Options of llama-server by the names that its presets use: without dashes, or as variables.

From `tools/server/README.md` of llama.cpp, November 2026. Only what cannot be told from a name is
listed: which options take no value, and which one dash belongs to. Pure.
"""

from __future__ import annotations

import msgspec

from trio_gateway.config.server_options import BY_SPELLING, ServerOption, Takes

# They take no value; `no-` before the name switches those off that are in `_SWITCHES`.
_FLAGS = frozenset(
    {
        "swa-full", "no-host", "cpu-moe", "check-tensors", "log-disable", "verbose",
        "log-verbose", "offline", "ignore-eos", "backend-sampling", "special", "spm-infill",
        "reuse-port", "embedding", "embeddings", "rerank", "reranking", "metrics", "props",
        "lora-init-without-apply", "spec-draft-cpu-moe", "cpu-moe-draft", "embd-gemma-default",
        "fim-qwen-1.5b-default", "fim-qwen-3b-default", "fim-qwen-7b-default",
        "fim-qwen-7b-spec", "fim-qwen-14b-spec", "fim-qwen-30b-default", "gpt-oss-20b-default",
        "gpt-oss-120b-default", "vision-gemma-4b-default", "vision-gemma-12b-default",
        "spec-default", "mlock",
    }
)  # fmt: skip
_SWITCHES = frozenset(
    {
        "perf", "escape", "kv-offload", "repack", "op-offload", "log-jsonl", "log-prefix",
        "log-timestamps", "kv-unified", "cache-idle-slots", "context-shift", "warmup",
        "cont-batching", "mmproj-auto", "mmproj", "mmproj-offload", "cors-credentials",
        "ui-mcp-proxy", "webui-mcp-proxy", "agent", "ui", "webui", "cache-prompt", "slots",
        "jinja", "models-autoload", "reasoning-preserve", "skip-chat-parsing",
        "prefill-assistant", "spec-draft-backend-sampling", "mmap", "direct-io",
    }
)  # fmt: skip
# With one dash; those with one letter are all so.
_SHORT = {
    "tb": "threads-batch", "Cr": "cpu-range", "Cb": "cpu-mask-batch", "Crb": "cpu-range-batch",
    "ub": "ubatch-size", "fa": "flash-attn", "kvo": "kv-offload", "nkvo": "no-kv-offload",
    "nr": "no-repack", "ctk": "cache-type-k", "ctv": "cache-type-v", "dt": "defrag-thold",
    "lm": "load-mode", "lzm": "lazy-mode", "dev": "device", "ot": "override-tensor",
    "cmoe": "cpu-moe", "ncmoe": "n-cpu-moe", "ncffn": "n-cpu-ffn", "ngl": "gpu-layers",
    "sm": "split-mode", "ts": "tensor-split", "mg": "main-gpu", "fit": "fit",
    "fitt": "fit-target", "fitc": "fit-ctx", "mu": "model-url", "dr": "docker-repo",
    "hf": "hf-repo", "hfr": "hf-repo", "hff": "hf-file", "hft": "hf-token", "lv": "verbosity",
    "ctkd": "cache-type-k-draft", "ctvd": "cache-type-v-draft", "jf": "json-schema-file",
    "bs": "backend-sampling", "lcs": "lookup-cache-static", "lcd": "lookup-cache-dynamic",
    "ctxcp": "ctx-checkpoints", "cms": "checkpoint-min-step", "cram": "cache-ram",
    "kvu": "kv-unified", "no-kvu": "no-kv-unified", "sp": "special", "np": "parallel",
    "cb": "cont-batching", "nocb": "no-cont-batching", "mm": "mmproj", "mmu": "mmproj-url",
    "mmdev": "mmproj-device", "ag": "agent", "no-ag": "no-agent", "to": "timeout",
    "rea": "reasoning", "sps": "slot-prompt-similarity", "hfd": "hf-repo-draft",
    "hfrd": "hf-repo-draft", "td": "threads-draft", "tbd": "threads-batch-draft",
    "otd": "override-tensor-draft", "cmoed": "cpu-moe-draft", "ncmoed": "n-cpu-moe-draft",
    "devd": "device-draft", "ngld": "gpu-layers-draft", "md": "model-draft", "ndio": "no-direct-io",
    "dio": "direct-io",
    "t": "threads", "C": "cpu-mask", "c": "ctx-size", "n": "predict", "b": "batch-size",
    "e": "escape", "m": "model", "v": "verbose", "s": "seed", "l": "logit-bias",
    "j": "json-schema", "r": "reverse-prompt", "a": "alias",
}  # fmt: skip
# Several long names of one option.
_SAME = {
    "n-predict": "predict", "n-gpu-layers": "gpu-layers", "temperature": "temp",
    "embeddings": "embedding", "reranking": "rerank", "log-verbosity": "verbosity",
    "swa-checkpoints": "ctx-checkpoints", "n-gpu-layers-draft": "gpu-layers-draft",
    "spec-draft-ngl": "gpu-layers-draft", "spec-draft-model": "model-draft",
    "typical-p": "typical", "top-n-sigma": "top-nsigma", "log-verbose": "verbose",
}  # fmt: skip
_BY_VARIABLE = {
    "HF_TOKEN": "hf-token", "LLAMA_API_KEY": "api-key", "LLAMA_ARG_FLASH_ATTN": "flash-attn",
    "LLAMA_ARG_N_PREDICT": "predict", "LLAMA_ARG_TEMPERATURE": "temp",
    "LLAMA_ARG_TOP_K": "top-k", "LLAMA_ARG_TOP_P": "top-p", "LLAMA_ARG_MIN_P": "min-p",
    "LLAMA_ARG_DEVICE": "device", "LLAMA_ARG_SPLIT_MODE": "split-mode",
    "LLAMA_ARG_TENSOR_SPLIT": "tensor-split", "LLAMA_ARG_MAIN_GPU": "main-gpu",
    "LLAMA_ARG_NUMA": "numa", "LLAMA_ARG_FIT": "fit", "LLAMA_ARG_LOAD_MODE": "load-mode",
    "LLAMA_ARG_MMAP": "mmap", "LLAMA_ARG_NO_MMAP": "no-mmap", "LLAMA_ARG_MLOCK": "mlock",
    "LLAMA_ARG_CACHE_REUSE": "cache-reuse", "LLAMA_ARG_CACHE_PROMPT": "cache-prompt",
    "LLAMA_ARG_CONTEXT_SHIFT": "context-shift", "LLAMA_ARG_ENDPOINT_METRICS": "metrics",
    "LLAMA_ARG_ENDPOINT_PROPS": "props", "LLAMA_ARG_TIMEOUT": "timeout",
    "LLAMA_ARG_CONT_BATCHING": "cont-batching",
}  # fmt: skip
_YES = frozenset({"on", "enabled", "true", "1", "yes"})
_NO = frozenset({"off", "disabled", "false", "0", "no"})


class Named(msgspec.Struct, frozen=True):
    """An option of a preset. `name`: one long name for all its names. `is_negated`: this name
    switches it off. `takes_value`: it is no flag."""

    name: str
    takes_value: bool
    is_negated: bool = False

    def args(self, value: str) -> tuple[str, ...]:
        """As arguments; none: it is off, and there is nothing that switches it off."""
        if self.takes_value:
            return (f"--{self.name}", value)
        is_on = value.lower() in _YES or (value.lower() not in _NO and value != "")
        if is_on != self.is_negated:
            return (f"--{self.name}",)
        return (f"--no-{self.name}",) if self.name in _SWITCHES else ()


def named(key: str) -> Named:
    """What a key of a preset means. One that is not known is taken for an option with a value."""
    if (found := _BY_VARIABLE.get(key) or _by_variable(key)) is not None:
        return named(found)
    name = _SHORT.get(key, key).replace("_", "-")
    name = _SAME.get(name, name)
    bare = name.removeprefix("no-")
    if bare != name and bare in _SWITCHES:
        return Named("mmproj-auto" if bare == "mmproj" else bare, False, True)
    if name in _SWITCHES and name != "mmproj":
        return Named(name, False)
    known = BY_SPELLING.get(f"--{name}")
    is_flag = name in _FLAGS or (known is not None and known[0].takes is Takes.NOTHING)
    return Named(name, not is_flag)


def _by_variable(key: str) -> str | None:
    if not key.startswith("LLAMA_"):
        return None
    options: dict[str, ServerOption] = {}
    for option, is_on in BY_SPELLING.values():
        for variable in option.variables if is_on else ():
            options[variable] = option
            if option.negations:
                no = variable.replace("_ARG_", "_ARG_NO_")
                options.setdefault(no, option)
    if key in options:
        name = options[key].name.removeprefix("--")
        return f"no-{name}" if "_ARG_NO_" in key else name
    return key.removeprefix("LLAMA_ARG_").lower().replace("_", "-")
