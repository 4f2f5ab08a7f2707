"""What an Ollama request says besides its content: options, keep_alive, think, format. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from trio_gateway.rawjson import whole_number
from trio_gateway.server.api.errors import ApiError

FOREVER_S = math.inf
MOST_STOPS = 1024
_MOST = 2**31 - 1  # of tokens, in 32 bits as engines have them
REPEAT_LAST_N = "repeat_last_n"

# Go's time.ParseDuration, which Ollama reads `keep_alive` with.
_UNITS_S = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_PART = r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"([-+]?)((?:{_PART})+)")
_LONGEST_DURATION = 64  # characters

_EFFORTS = ("low", "medium", "high")


def keep_alive_s(value: object) -> float | None:
    """How long a model stays loaded after its last request, in seconds.

    None: nothing is said of it. 0: it is unloaded. `FOREVER_S`: anything below 0.

    Raises:
        ApiError: 400, neither a number nor a duration such as "5m".
    """
    match value:
        case None | "":
            return None
        case bool():
            seconds = None
        case int() | float():
            seconds = _finite(value)
        case str():
            seconds = _duration_s(value)
        case _:
            seconds = None
    if seconds is None:
        shown = repr(value)[:80]
        message = f'`keep_alive` is {shown}; expected seconds, or a duration such as "5m" or "-1"'
        raise ApiError(400, message, param="keep_alive")
    return FOREVER_S if seconds < 0 else seconds


def _finite(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:  # an integer of 400 digits
        return None


def _duration_s(text: str) -> float | None:
    text = text.strip()
    if len(text) > _LONGEST_DURATION or not text.isprintable():
        return None
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text):
        return _finite(float(text))
    if (found := _DURATION.fullmatch(text)) is None:
        return None
    total = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, found[2]))
    return -total if found[1] == "-" else total


# -- options ------------------------------------------------------------------------------------


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _stops(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    good = isinstance(value, list) and all(isinstance(stop, str) for stop in value)
    return value if good and len(value) <= MOST_STOPS else None  # type: ignore[arg-type, return-value]


_Reader = Callable[[object], Any]

# Ollama's name → the engine's, and how it is read. The second half is llama.cpp's own.
_SAMPLING: dict[str, tuple[str, _Reader, str]] = {
    "temperature": ("temperature", _number, "a number"),
    "top_p": ("top_p", _number, "a number"),
    "seed": ("seed", whole_number, "an integer"),
    "stop": ("stop", _stops, "an array of strings"),
    "presence_penalty": ("presence_penalty", _number, "a number"),
    "frequency_penalty": ("frequency_penalty", _number, "a number"),
    "top_k": ("top_k", whole_number, "an integer"),
    "min_p": ("min_p", _number, "a number"),
    "typical_p": ("typical_p", _number, "a number"),
    "repeat_penalty": ("repeat_penalty", _number, "a number"),
    REPEAT_LAST_N: (REPEAT_LAST_N, whole_number, "an integer"),
    "mirostat": ("mirostat", whole_number, "an integer"),
    "mirostat_tau": ("mirostat_tau", _number, "a number"),
    "mirostat_eta": ("mirostat_eta", _number, "a number"),
}


def sampling_fields(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options as fields of an OpenAI request, together with llama.cpp's own.

    What belongs to a model's start (`num_gpu`, `num_thread`, …) is the configuration's business and
    left out, as are options that Ollama does not know.

    Raises:
        ApiError: 400, an option has the wrong type.
    """
    fields: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name in _SAMPLING and value is not None:
            target, read, expected = _SAMPLING[name]
            fields[target] = _read(name, value, read, expected)
    limit = (options or {}).get("num_predict")
    if limit is not None and (most := _read("num_predict", limit, whole_number, "an integer")) >= 0:
        fields["max_tokens"] = min(most, _MOST)  # below 0: as long as the model goes on
    return fields


def wished_context(options: Mapping[str, Any] | None) -> int | None:
    """`num_ctx`, the context that the client would like; None: it names none.

    Raises:
        ApiError: 400, it is not an integer.
    """
    value = (options or {}).get("num_ctx")
    if value is None:
        return None
    wish: int = _read("num_ctx", value, whole_number, "an integer")
    return min(wish, _MOST) if wish > 0 else None


def _read(name: str, value: object, read: _Reader, expected: str) -> Any:
    if (found := read(value)) is None:
        message = f"option `{name}` must be {expected}"
        raise ApiError(400, message, param=f"options.{name}")
    return found


# -- think and format ---------------------------------------------------------------------------


def thinking_fields(think: object) -> dict[str, Any]:
    """The fields of a chat request that switch a model's reasoning on, off, or to an effort.

    Raises:
        ApiError: 400, none of Ollama's values.
    """
    if think is None or think == "":
        return {}
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think}}
    if isinstance(think, str) and think in _EFFORTS:
        return {"reasoning_effort": think}
    message = f'`think` must be true, false, "low", "medium" or "high", not {repr(think)[:80]}'
    raise ApiError(400, message, param="think")


def format_fields(wanted: object, endpoint: str) -> dict[str, Any]:
    """The fields that make the answer JSON, or JSON of a schema. Only a chat has OpenAI's own.

    Raises:
        ApiError: 400, neither "json" nor a schema.
    """
    if wanted is None or wanted == "":
        return {}
    if wanted != "json" and not isinstance(wanted, dict):
        message = '`format` must be "json" or a JSON schema, which is an object'
        raise ApiError(400, message, param="format")
    if endpoint != "chat/completions":
        return {"json_schema": {"type": "object"} if wanted == "json" else wanted}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "answer", "schema": wanted}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
