"""The configuration in force as it may be shown: every key with its value, and no secret. Pure.

What is a secret is told three times over: by its place (API keys, `api_key`), by its name (a
variable, an option or a field that is called a key, token, password …), and by its text: whatever
was found to be one is taken out wherever else it occurs.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from trio_gateway.config.access_schema import ApiKey
from trio_gateway.config.engine_key import configured_key
from trio_gateway.config.engine_types import EngineType
from trio_gateway.config.schema import (
    NEVER,
    EngineOptions,
    GatewayConfig,
    RewriteConfig,
    Secret,
    VariantConfig,
)
from trio_gateway.config.site_schema import SiteOptions

HIDDEN = "•••"
# Shorter texts occur by chance; they are hidden in their own place only.
_SHORTEST = 6

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# Words of a name, after `_`, `-`, `.` or a small letter before a capital one.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRETS = frozenset(
    {
        "key", "keys", "apikey", "token", "secret", "secrets", "password", "passwd", "passphrase",
        "pass", "pwd", "pw", "credential", "credentials", "auth", "authorization", "bearer",
        "cookie", "hft", "pat", "jwt", "dsn", "signature",
    }
)  # fmt: skip
# What such a name leads to is a place or a kind, not the secret: --api-key-file, --auth-type.
_HARMLESS_ENDS = frozenset({"file", "path", "dir", "folder", "type", "name", "timeout"})
# Variables whose values everybody may see: what engines are told about devices and threads.
_OPEN_VARIABLES = re.compile(
    r"(CUDA|HIP|ROCR|ROCM|HSA|GGML|GPU|NVIDIA|OMP|MKL|OPENBLAS|NCCL|VK|MTL|SYCL|ONEAPI|LLAMA|VLLM|"
    r"SGLANG|MALLOC|GOMP|KMP|PYTORCH|TORCH|TRITON|LD_LIBRARY|DYLD_LIBRARY)_\w+|PATH|HOME|LANG|LC_\w+|TZ|TMPDIR"
)
_ASSIGNED = re.compile(r"(-e|-D|--env=|--build-arg=|--\w*)?([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_HEADER = re.compile(r"([A-Za-z][\w-]*):\s*(\S.*)", re.DOTALL)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_QUERY_IN_URL = re.compile(r"([?&][\w.-]+=)[^&#\s\"']+")


def shown_configuration(config: GatewayConfig) -> dict[str, Any]:
    """The tables of a configuration as they are after all defaults. Times are seconds,
    "never" where there is no end; sizes are bytes."""
    hide = hider(config)
    shown = {
        "server": _shown(config.server),
        "pools": _shown(config.pools),
        "models": _shown(config.models),
        "peers": _shown(config.peers),
        "choices": _shown(config.choices),
    }
    return {name: _without(value, hide) for name, value in shown.items()}


class Hider:
    """Takes secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._whole = frozenset(secret for secret in secrets if secret)
        # The longest first: one may be a part of another one.
        parts = sorted((s for s in self._whole if len(s) >= _SHORTEST), key=len, reverse=True)
        self._parts = re.compile("|".join(map(re.escape, parts))) if parts else None

    def __call__(self, text: str) -> str:
        text = text if self._parts is None else self._parts.sub(HIDDEN, text)
        if "://" in text:
            text = _QUERY_IN_URL.sub(rf"\1{HIDDEN}", _USER_IN_URL.sub(HIDDEN, text))
        return text


def hider(config: GatewayConfig, environment: Mapping[str, str] | None = None) -> Hider:
    """What takes all secrets of this configuration out of a text, such as a note.

    Args:
        environment: the gateway's own, for the keys that the configuration has read there.
    """
    read = environment or {}
    return Hider(
        [*_secrets(config), *(read[name] for name in config.secret_variables if name in read)]
    )


def _secrets(config: GatewayConfig) -> Iterator[str]:
    for key in config.server.access.api_keys:
        yield key.secret
    if config.server.traces is not None:
        yield from (header.reveal() for header in config.server.traces.headers.values())
    for peer in config.peers:
        if peer.options.api_key is not None:
            yield peer.options.api_key.reveal()
    for model in config.models:
        if model.rewrite is not None:
            for fields in (model.rewrite.set, model.rewrite.default):
                yield from _named_texts({name: _decoded(raw) for name, raw in fields.items()})
        tokens = model.tokenization
        yield from _in_args(() if tokens is None else (*tokens.base_args, *tokens.extra_args))
        for variant in model.variants:
            yield from _of_variant(variant, model.engine.key_variables)


def _of_variant(variant: VariantConfig, key_variables: Sequence[str]) -> Iterator[str]:
    found = configured_key(variant, key_variables)
    if found is not None and found.secret is not None:
        yield found.secret.reveal()
    for environment in (variant.env, variant.inherited_options):
        for name, value in environment.items():
            if names_a_secret(name):
                yield value
                yield from (part.strip() for part in value.split(","))
    if (cluster := variant.options.cluster) is not None:
        yield from (header.reveal() for header in cluster.headers.values())
    yield from _in_args(variant.args)
    yield from _in_args(variant.stop_command)
    for way in variant.options.ways_to_wake:
        yield from _in_args(way.command)


def _in_args(args: Sequence[str]) -> Iterator[str]:
    for before, after in zip(args, _args(args), strict=True):
        if before != after and after.endswith(HIDDEN):
            secret = before.removeprefix(after.removesuffix(HIDDEN))
            yield secret
            yield from (part.strip() for part in secret.split(","))


def _named_texts(value: Json) -> Iterator[str]:
    """Texts in fields whose names say that they are secrets."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from _texts(inner) if names_a_secret(name) else _named_texts(inner)
        case list():
            for inner in value:
                yield from _named_texts(inner)


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() | dict():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _texts(inner)


# -- showing --------------------------------------------------------------------------------------


def names_a_secret(name: str) -> bool:
    """Whether what has this name is to be kept from those who look on. `max_tokens` is none."""
    words = [word.lower() for word in _WORD.findall(name)]
    joined = "".join(words)
    has_one = not _SECRETS.isdisjoint(words) or "apikey" in joined or "password" in joined
    return has_one and words[-1] not in _HARMLESS_ENDS


def _shown(value: object) -> Json:
    match value:
        case Secret() | ApiKey():
            return HIDDEN if isinstance(value, Secret) else {**_fields(value), "secret": HIDDEN}
        case EngineType():
            return value.value
        case EngineOptions() | SiteOptions():
            return {**_fields(value), "wake_command": [*_args(value.wake_command)]}
        case VariantConfig():
            return {**_fields(value), **_of_process(value)}
        case RewriteConfig():
            pairs = {"set": value.set, "default": value.default}
            return _fields(value) | {name: _rewritten(raw) for name, raw in pairs.items()}
        case msgspec.Struct():
            return _fields(value)
        case enum.Enum():
            return _shown(value.value)
        case float() if value == NEVER:
            return "never"
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(name): _shown(inner) for name, inner in value.items()}
        case frozenset() | set():
            return [*sorted(map(str, value))]
        case list() | tuple():
            return [_shown(inner) for inner in value]
        case PurePath():
            return str(value)
        case _:
            return str(value)


def _fields(value: msgspec.Struct) -> dict[str, Json]:
    return {name: _shown(getattr(value, name)) for name in value.__struct_fields__}


def _of_process(variant: VariantConfig) -> dict[str, Json]:
    return {
        "args": [*_args(variant.args)],
        "stop_command": [*_args(variant.stop_command)],
        "env": _environment(variant.env),
        "inherited_options": _environment(variant.inherited_options),
    }


def _environment(environment: Mapping[str, str]) -> dict[str, Json]:
    return {name: _of_variable(name, value) for name, value in environment.items()}


def _of_variable(name: str, value: str) -> str:
    """Its value, if it is one of those that are known to hold none: it may have any name."""
    is_open = _OPEN_VARIABLES.fullmatch(name) is not None and not names_a_secret(name)
    return value if is_open else HIDDEN


def _args(args: Sequence[str]) -> Iterator[str]:
    """The words of a command, without the values of options that are called secrets, of variables
    that are set in it, and of headers."""
    after = False  # the option before this word has a secret as its value
    for word in args:
        match = _ASSIGNED.fullmatch(word)
        header = _HEADER.fullmatch(word)
        if after:
            # An option, not a value, where the one before it is a switch.
            is_option = word.startswith("--")
            after = is_option and names_a_secret(word) and match is None
            if not is_option:
                yield HIDDEN
                continue
        if match is not None:
            yield _of_assignment(word, match)
        elif header is not None and names_a_secret(header[1]):
            yield f"{word[: header.start(2)]}{HIDDEN}"
        else:
            after = word.startswith("-") and names_a_secret(word)
            yield word


def _of_assignment(word: str, match: re.Match[str]) -> str:
    is_variable = not word.startswith("--") or word.startswith(("--env=", "--build-arg="))
    name, value = match[2], match[3]
    is_shown = (
        _of_variable(name, value) == value
        if is_variable and name.isupper()
        else not names_a_secret(name)
    )
    return word if is_shown or not value else word[: match.start(3)] + HIDDEN


def _rewritten(fields: Mapping[str, bytes]) -> dict[str, Json]:
    return _unnamed({name: _decoded(raw) for name, raw in fields.items()})


def _unnamed(value: dict[str, Json]) -> dict[str, Json]:
    return {
        name: HIDDEN if names_a_secret(name) else _within(inner) for name, inner in value.items()
    }


def _within(value: Json) -> Json:
    if isinstance(value, dict):
        return _unnamed(value)
    return [_within(inner) for inner in value] if isinstance(value, list) else value


def _decoded(raw: bytes) -> Json:
    decoded: Json = msgspec.json.decode(raw)
    return decoded


def _without(value: Json, hide: Hider) -> Json:
    """Also in names of fields: an `env` may have anything."""
    match value:
        case str():
            return hide(value)
        case list():
            return [_without(inner, hide) for inner in value]
        case dict():
            return {hide(name): _without(inner, hide) for name, inner in value.items()}
        case _:
            return value
