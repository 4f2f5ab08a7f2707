"""Readers for the addresses in a configuration: what to listen on, where an engine is."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.reading import fields
from trio_gateway.config.reading.fields import Mistakes
from trio_gateway.config.schema import ListenAddress
from trio_gateway.config.server_options import PORT

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^\[\]:]+)):(?P<port>[0-9]{1,5})")


def base_url(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        bare = not (parts.query or parts.fragment or parts.username) and parts.path in ("", "/")
        if parts.scheme == "http" and parts.hostname and port and bare:
            return value.rstrip("/")
    mistakes.expected(
        path, 'a base URL with a port and no path, such as "http://127.0.0.1:8080"', value
    )
    return None


def plain_url(value: Any) -> str | None:
    """A URL with a host, and without user, query or fragment; None if it is none."""
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        return None
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return None
    bare = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not bare:
        return None
    return value.rstrip("/")


def engine_args(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    """An engine's arguments; a `--port` among them must be one that the gateway can connect to."""
    if isinstance(value, str) and value.strip():
        words = ", ".join(f'"{word}"' for word in value.split()[:2])
        hint = f"write one string for each: args = {{ {words}, … }}"
        mistakes.add(path, f"expected an array of strings, got {fields.show(value)}; {hint}")
        return None
    args = fields.string_array(mistakes, path, value) or ()
    check_port(mistakes, path, EngineArgs(args).value(PORT), PORT.name)
    return args


def check_port(mistakes: Mistakes, path: str, port: str | None, where: str) -> None:
    """`where`: what names it, for the message."""
    if port is None or "${PORT}" in port:
        return
    if re.fullmatch(r"[0-9]{1,5}", port) is None or not 1 <= int(port) <= 65535:
        what = f'{where} to be 1 to 65535, or "${{PORT}}" for one that the gateway picks'
        mistakes.expected(path, what, port)


def listen_v4(mistakes: Mistakes, path: str, value: Any) -> tuple[ListenAddress, ...] | None:
    return _listen(mistakes, path, value, "v4", '"host:port"')


def listen_v6(mistakes: Mistakes, path: str, value: Any) -> tuple[ListenAddress, ...] | None:
    return _listen(mistakes, path, value, "v6", '"[host]:port"')


def _listen(
    mistakes: Mistakes, path: str, value: Any, family: str, form: str
) -> tuple[ListenAddress, ...] | None:
    what = f'{form}, an array of them, or "none"'
    if isinstance(value, str):
        entries: list[tuple[str, Any]] = [(path, value)] if value != "none" else []
    else:
        entries = list(fields.items(mistakes, path, value, what))
    found = []
    for at, entry in entries:
        match = _LISTEN.fullmatch(entry) if isinstance(entry, str) else None
        host: str = (match[family] or "") if match else ""
        port = int(match["port"]) if match else 0
        if port > 65535 or not _is_host(host, family):
            # In an array, "none" and a further array are wrong.
            mistakes.expected(at, what if at == path else form, entry)
        else:
            found.append(ListenAddress(host, port))
    return tuple(found)


def _is_host(host: str, family: str) -> bool:
    if family == "v6":
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    if re.fullmatch(r"[0-9.]+", host) is not None:
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host) is not None
