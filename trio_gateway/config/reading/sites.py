"""Readers for the URLs of an engine that is elsewhere, and for how they are balanced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trio_gateway.config.reading import fields, wake
from trio_gateway.config.reading.addresses import plain_url
from trio_gateway.config.reading.fields import Mistakes, Reader, Record
from trio_gateway.config.site_schema import Balance, SiteOptions
from trio_gateway.config.wake_schema import NO_WAY

_URL = 'a base URL such as "https://gpu.example.com/v1", without user, query or fragment'
_MOST_WEIGHT = 1000
_FOR_ALL = "it holds for all of them: write it in the model or in a variant"
_WORDS = {
    **dict.fromkeys(("urls", "address", "base_url", "host", "connect"), 'use "url"'),
    **dict.fromkeys(("share", "priority", "capacity"), 'use "weight"'),
    **dict.fromkeys(
        (
            "api_key", "served_name", "health_path", "health_interval", "ca_file", "verify_tls",
            "connect_timeout", "first_byte_timeout", "gateway", "balance", "parallel",
            "wake_timeout",
        ),
        _FOR_ALL,
    ),
}  # fmt: skip
# By other names, what is meant.
_MEANT = {
    **dict.fromkeys(("failover", "fallback", "first", "ordered", "priority"), Balance.IN_ORDER),
    **dict.fromkeys(
        (
            "least_connections", "least_conn", "leastconn", "least_requests", "least_busy",
            "round_robin", "random", "weighted", "latency", "even", "spread",
        ),
        Balance.LEAST_LOADED,
    ),
}  # fmt: skip


def sites(
    mistakes: Mistakes, path: str, value: Any, *, command: Reader[tuple[str, ...]]
) -> tuple[SiteOptions, ...] | None:
    """One base URL or several, each a text or a table with more about it. `command` reads a
    program and its arguments."""
    if isinstance(value, str) or (fields.is_table(value) and "url" in [*value.keys()]):
        entries: list[tuple[str, Any]] = [(path, value)]
    else:
        entries = list(fields.items(mistakes, path, value, "a base URL, or an array of them"))
        if not entries and fields.is_table(value):
            mistakes.add(path, "expected at least one base URL")
    found: list[SiteOptions] = []
    for at, entry in entries:
        if (site := _site(mistakes, at, entry, command)) is None:
            continue
        if site.url in [known.url for known in found]:
            mistakes.add(at, f"{site.url} is listed twice; remove one")
        else:
            found.append(site)
    return tuple(found)


def _site(
    mistakes: Mistakes, path: str, value: Any, command: Reader[tuple[str, ...]]
) -> SiteOptions | None:
    if not fields.is_table(value):
        url = _url(mistakes, path, value)
        return None if url is None else SiteOptions(url=url)
    record = Record(mistakes, path, value, _WORDS)
    way = wake.way(mistakes, record, NO_WAY, command)
    site = SiteOptions(
        url=record.require("url", _url, _URL, ""),
        weight=record.read("weight", _weight, None),
        wake=way.lan,
        wake_command=way.command,
    )
    record.finish()
    return site if site.url else None


def _url(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if (url := plain_url(value)) is None:
        mistakes.add(path, f"expected {_URL}")  # not shown: it may hold a password
    return url


def _weight(mistakes: Mistakes, path: str, value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value <= _MOST_WEIGHT:
        return float(value)
    hint = "; to send it nothing, remove the URL" if is_number and value == 0 else ""
    what = f"a positive number, such as 2 for twice as much (up to {_MOST_WEIGHT})"
    mistakes.add(path, f"expected {what}, got {fields.show(value)}{hint}")
    return None


def balance(mistakes: Mistakes, path: str, value: Any) -> Balance | None:
    for known in Balance:
        if value == known.value:
            return known
    names = {**{known.value: known for known in Balance}, **_MEANT}
    meant = fields.near_word(value, names) if isinstance(value, str) else None
    hint = "" if meant is None else f'; write "{names[meant].value}"'
    what = " or ".join(f'"{known.value}"' for known in Balance)
    mistakes.add(path, f"expected {what}, got {fields.show(value)}{hint}")
    return None


def check(
    mistakes: Mistakes, path: str, wanted: Balance | None, found: Sequence[SiteOptions]
) -> None:
    """What does not go together."""
    if wanted is Balance.IN_ORDER and any(site.weight is not None for site in found):
        what = 'URLs have a `weight`, which nothing reads "in_order"'
        mistakes.add(f"{path}.balance", f'{what}; write "least_loaded", or remove the weights')
