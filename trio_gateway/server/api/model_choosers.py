"""Fields of a request by which hosted sites choose other models than the one in `model`. Pure.

A key that is limited to some models must not send them to such a site: another model would answer,
which somebody pays for and did not allow. `model` is not among them: the gateway sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from trio_gateway.server.api.errors import ApiError

_MODEL = "model"
# In small letters, without `_` and `-`: sites written in Go take `Models`, others `extraBody`.
_CHOOSERS = frozenset(
    {
        # OpenRouter, and who follows it
        "models", "route", "provider", "providers", "preset", "plugins",
        # LiteLLM's proxy, and what clients put around a body
        "fallback", "fallbacks", "contextwindowfallbacks", "contentpolicyfallbacks",
        "defaultfallbacks", "extrabody", "extraheaders", "extraquery", "userconfig", "modellist",
        "modelgroup", "modelid", "modelname", "modelalias", "routersettings",
        "routersettingsoverride", "customllmprovider", "specificdeployment", "deployment",
        "deploymentid", "apibase", "baseurl", "engine", "engineid", "litellmparams",
        "litellmmetadata", "agentid", "assistantid",
        # Vercel, Groq, Requesty, Portkey, Fireworks, LoRAX, SGLang
        "provideroptions", "compoundcustom", "requesty", "portkey", "draftmodel",
        "speculativemodel", "adapterid", "lorapath",
    }
)  # fmt: skip
_CHOOSERS_INSIDE = frozenset({"model", "models", "fallback", "fallbacks"})
# Nobody looks for a model in what the prompt is made of, nor in the schema of an answer.
_CONTENT = frozenset(
    {
        "messages", "input", "prompt", "system", "instructions", "query", "documents", "texts",
        "content", "metadata", "response_format", "json_schema", "grammar", "functions",
        "function_call", "tool_choice", "chat_template_kwargs", "logit_bias", "user", "images",
    }
)  # fmt: skip
# A tool's schema: a `model` there is a car's, or whatever the tool is about.
_SCHEMAS = frozenset({"function", "parameters", "input_schema", "schema", "properties"})
_LOOKED_AT_MAX = 5000  # values, about 2 ms


def is_chooser(name: str) -> bool:
    """Whether a site may choose a model by a field of this name. A form may have `models[]`."""
    if name == _MODEL:
        return False
    plain = name.partition("[")[0].partition(".")[0].strip().casefold()
    return plain == _MODEL or plain.replace("_", "").replace("-", "") in _CHOOSERS


def chooser_among(values: Mapping[str, Any]) -> str | None:
    """The first such field of a JSON request, or the one that has a `model` inside; None: none.
    One that is too large to be looked through is taken for one."""
    for name in values:
        if is_chooser(name):
            return name
    left = _LOOKED_AT_MAX
    for name, value in values.items():
        if name in _CONTENT:
            continue
        found, left = _look_through(value, left)
        if found is not None:
            return f"{name}: {found}"
        if left <= 0:
            return name
    return None


def _look_through(value: Any, left: int) -> tuple[str | None, int]:
    """The name of a field inside that chooses a model, and how many values may still be seen."""
    rest = [value]
    while rest and left > 0:
        left -= 1
        value = rest.pop()
        inner: Iterable[Any] = ()
        if isinstance(value, dict):
            for name in islice(value, left):
                if name.casefold() in _CHOOSERS_INSIDE:
                    return name, left
            left -= len(value)
            inner = (child for name, child in value.items() if name not in _SCHEMAS)
        elif isinstance(value, list):
            left -= len(value)
            inner = value
        rest += [child for child in islice(inner, max(left, 0)) if isinstance(child, dict | list)]
    return None, left


def chooser_refused(field: str, key: str | None) -> ApiError:
    message = (
        f'the API key "{key}" is limited to some models, and by `{field}` this model\'s site could '
        "choose another one; leave it out"
    )
    return ApiError(403, message, "permission_error", code="field_not_allowed", param=field)
