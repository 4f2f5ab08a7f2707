"""What the tests' arguments of llama-server mean here: a tiny model for each of theirs, and options
that the embedded engine has no flag for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trio_gateway.config import server_options as known
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.server_options import ServerOption

Setter = Callable[[Any, str], None]  # of xllamacpp's CommonParams


class NotHere(Exception):
    """The tests want a server that neither side can be: a router, one with an adapter."""


class Option(NamedTuple):
    takes_value: bool
    set: Setter


def _to(name: str, convert: Callable[[str], Any] = str) -> Option:
    return Option(True, lambda params, value: setattr(params, name, convert(value)))


def _draft(name: str, convert: Callable[[str], Any]) -> Option:
    return Option(
        True, lambda params, value: setattr(params.speculative.draft, name, convert(value))
    )


def _speculative(name: str, convert: Callable[[str], Any]) -> Option:
    return Option(True, lambda params, value: setattr(params.speculative, name, convert(value)))


def _sampling(name: str, convert: Callable[[str], Any]) -> Option:
    return Option(True, lambda params, value: setattr(params.sampling, name, convert(value)))


def _flag(name: str, value: bool = True) -> Option:
    return Option(False, lambda params, _: setattr(params, name, value))


def _set_draft(params: Any, value: str) -> None:
    params.speculative.draft.mparams.path = value


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _set_of(text: str) -> set[str]:
    return set(text.split(","))


def _with_slash(folder: str) -> str:
    return f"{folder.rstrip('/')}/"


def _member(enumeration: str, prefix: str) -> Callable[[str], Any]:
    def member(value: str) -> Any:
        import xllamacpp

        member = value.upper().replace("-", "_")
        return getattr(getattr(xllamacpp, enumeration), f"{prefix}_{member}")

    return member


_CACHE_TYPE = _member("ggml_type", "GGML_TYPE")
_REASONING = _member("common_reasoning_format", "COMMON_REASONING_FORMAT")
_SPECULATIVE = _member("common_speculative_type", "COMMON_SPECULATIVE_TYPE")
_FLASH = {"on": "enabled", "off": "disabled", "auto": "auto"}
_FLASH_TYPE = _member("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE")
_IGNORED = Option(False, lambda _params, _value: None)

# Of the engine, by their spellings; all others are those of the embedded engine.
ENGINE_OPTIONS: dict[str, Option] = {
    "--temp": _sampling("temp", float),
    "--seed": _sampling("seed", int),
    "--n-predict": _to("n_predict", int),
    "--metrics": _flag("endpoint_metrics"),
    "--slots": _flag("endpoint_slots"),
    "--no-slots": _flag("endpoint_slots", False),
    "--context-shift": _flag("ctx_shift"),
    "--reasoning-format": _to("reasoning_format", _REASONING),
    "--reasoning": _to("enable_reasoning", {"on": 1, "off": 0, "auto": -1}.__getitem__),
    "-ctk": _to("cache_type_k", _CACHE_TYPE),
    "-ctv": _to("cache_type_v", _CACHE_TYPE),
    "-fa": _to("flash_attn_type", lambda value: _FLASH_TYPE(_FLASH[value])),
    "--verbose": Option(False, lambda params, _: setattr(params, "verbosity", 2**31 - 1)),
    "--alias": _to("model_alias", _set_of),
    "--tags": _to("model_tags", _set_of),
    "--no-ui": _flag("ui", False),
    "--media-path": _to("media_path", _with_slash),
    "--no-cache-idle-slots": _flag("cache_idle_slots", False),
    "--ui-mcp-proxy": _flag("ui_mcp_proxy"),
    "--cors-origins": _to("cors_origins"),
    "--tools": _to("server_tools", lambda value: value.split(",")),
    "--tools-runtime": _to("server_tools_runtime"),
    "--mcp-servers-config": _to("mcp_servers_config"),
    "--mcp-servers-json": _to("mcp_servers_json"),
    "--model-draft": Option(True, _set_draft),
    "--spec-type": _speculative("types", lambda value: [_SPECULATIVE(value)]),
    "--spec-draft-n-min": _draft("n_min", int),
    "--spec-draft-n-max": _draft("n_max", int),
    "--spec-synth-len": _speculative("synth_len", float),
    "--spec-synth-rates": _speculative("synth_rates", _numbers),
    "--backend_sampling": Option(
        False, lambda params, _: setattr(params.sampling, "backend_sampling", True)
    ),
    "--offline": _IGNORED,
    "--cont-batching": _IGNORED,
    "--no-mmproj": _IGNORED,
}


def split(args: Sequence[str]) -> tuple[list[str], list[tuple[Option, str]]]:
    """Arguments of the embedded engine, and what else is to be set."""
    rest: list[str] = []
    further: list[tuple[Option, str]] = []
    waiting = iter(args)
    for arg in waiting:
        if (option := ENGINE_OPTIONS.get(arg)) is None:
            rest.append(arg)
        else:
            further.append((option, next(waiting) if option.takes_value else ""))
    return rest, further


def with_model(args: Sequence[str], model: Path) -> list[str]:
    """The same arguments with a model that is there.

    Raises:
        NotHere: they name none, so that it would be a router, or an adapter of their own model.
    """
    found = EngineArgs(args, {})
    if found.value(known.HF_REPO) is None and found.value(known.MODEL) is None:
        raise NotHere("a router: it would start llama-servers of its own")
    if found.value(known.LORA) is not None:
        raise NotHere("an adapter: there is none for a tiny model")
    rest = without(args, known.HF_REPO, known.HF_FILE, known.MODEL, known.MODEL_URL)
    rest += ["--model", str(model)]
    if found.value(known.DRAFT) is not None:
        rest = [*without(rest, known.DRAFT), "--model-draft", str(model)]
    if found.value(known.THREADS) is None:
        rest += ["--threads", "1"]  # threads of several engines would wait for each other, busily
    pooled = found.value(known.POOLING) is not None
    if found.switch(known.EMBEDDING) and not pooled:
        rest += ["--pooling", "mean"]  # as theirs has in its file
    return rest


def without(args: Sequence[str], *options: ServerOption) -> list[str]:
    """Without these, and what they take."""
    spellings = {spelling for option in options for spelling in option.spellings}
    rest: list[str] = []
    waiting = iter(args)
    for arg in waiting:
        if arg in spellings:
            next(waiting)
        else:
            rest.append(arg)
    return rest
