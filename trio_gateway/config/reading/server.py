"""Reads the table `server`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.history_schema import REQUESTS_MAX, HistoryConfig
from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.config.reading import (
    access,
    addresses,
    engine_keys,
    familiar_words,
    fields,
    paths,
    traces,
)
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import KvCarryoverConfig, ListenAddress, ServerConfig

_STYLES = (KeepaliveStyle.COMMENT, KeepaliveStyle.DATA)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_HEADERS = ("authorization", "x-api-key", "cookie", "proxy-authorization")


def read_server(mistakes: Mistakes, table: Any, folder: Path) -> ServerConfig:
    """The table `server`, or its defaults. Relative paths begin at `folder`."""
    resolve = partial(paths.resolve, folder)
    record = Record(mistakes, "server", table, familiar_words.SERVER)
    default = ServerConfig()
    before = len(mistakes.lines)
    listen, unix = _listen(mistakes, record, resolve)
    callers = access.access(record)
    if len(mistakes.lines) == before:
        access.refuse_open_listeners(mistakes, callers, listen)
    dumps = record.read("dumps_dir", fields.string, "")
    server = ServerConfig(
        listen=listen,
        listen_unix=unix,
        access=callers,
        tls=access.tls(record, resolve),
        limits=access.limits(record),
        timeouts=msgspec.structs.replace(
            engine_keys.timeouts(record, default.timeouts),
            stop_s=record.read(
                "engine_stop_timeout", fields.positive_seconds, default.timeouts.stop_s
            ),
        ),
        shutdown_grace_s=record.read("shutdown_grace", fields.seconds, default.shutdown_grace_s),
        dumps_dir=resolve(dumps) if dumps else None,
        clear_dumps_on_start=record.read("clear_dumps_on_start", fields.boolean, False),
        max_body_bytes=record.read("max_body_size", fields.size_bytes, default.max_body_bytes),
        max_buffered_bytes=record.read("max_buffered", fields.size_bytes, 0) or None,
        max_spooled_bytes=record.read("max_spooled", fields.size_bytes, 0) or None,
        default_answer_tokens=record.read("default_answer_tokens", fields.positive_int, 0) or None,
        queue_limit=record.read("queue_limit", fields.positive_int, default.queue_limit),
        queue_timeout_s=record.read(
            "queue_timeout", fields.positive_seconds, default.queue_timeout_s
        ),
        fairness_window_s=record.read("fairness_window", fields.seconds, default.fairness_window_s),
        stream_keepalive_s=record.read(
            "stream_keepalive", fields.seconds, default.stream_keepalive_s
        ),
        stream_keepalive_style=record.read(
            "stream_keepalive_style", _keepalive_style, default.stream_keepalive_style
        ),
        loading_state=record.read(
            "loading_state", engine_keys.loading_state, default.loading_state
        ),
        kv_carryover=_kv_carryover(record, resolve),
        history=_history(mistakes, record, resolve),
        traces=traces.traces(mistakes, record),
        hide_cached_tokens=record.read(
            "hide_cached_tokens", fields.boolean, default.hide_cached_tokens
        ),
        cache_break_excerpts=record.read(
            "cache_break_excerpts", fields.boolean, default.cache_break_excerpts
        ),
        session_headers=record.read("session_headers", _headers, default.session_headers),
        preload=record.read("preload", fields.names, ()),
        page=record.read("page", fields.boolean, default.page),
        share_prefixes=record.read("share_prefixes", fields.boolean, default.share_prefixes),
    )
    record.finish()
    return server


def _headers(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    names = fields.string_array(mistakes, path, value)
    for name in names or ():
        if not _HEADER.fullmatch(name) or name.lower() in _SECRET_HEADERS:
            mistakes.expected(path, 'names of headers, as "X-Session-Id"', name)
            return None
    return names if names is None else tuple(name.lower() for name in names)


def _keepalive_style(mistakes: Mistakes, path: str, value: Any) -> KeepaliveStyle | None:
    known = KeepaliveStyle.from_word(value) if isinstance(value, str) else None
    if known is KeepaliveStyle.REASONING:
        mistakes.add(path, 'for "reasoning" use loading_state = "reasoning"')
        return None
    if known is None:
        words = " or ".join(f'"{style.value}"' for style in _STYLES)
        mistakes.expected(path, words, value)
    return known


def _listen(
    mistakes: Mistakes, record: Record, resolve: Callable[[str], Path]
) -> tuple[tuple[ListenAddress, ...], tuple[UnixAddress, ...]]:
    before = len(mistakes.lines)
    v4 = record.read("listen_v4", addresses.listen_v4, ServerConfig().listen)
    none: tuple[ListenAddress, ...] = ()
    v6 = record.read("listen_v6", addresses.listen_v6, none)
    no_files: tuple[UnixAddress, ...] = ()
    unix = record.read("listen_unix", partial(access.listen_unix, resolve=resolve), no_files)
    if not v4 and not v6 and not unix and len(mistakes.lines) == before:
        mistakes.add("server", 'listen_v4 and listen_v6 are both "none": nothing to listen on')
    fixed = [address for address in (*v4, *v6) if address.port]
    for address in sorted({str(a) for a in fixed if fixed.count(a) > 1}):
        mistakes.add("server", f"{address} is listed twice; remove one")
    return (*v4, *v6), unix


def _history(mistakes: Mistakes, server: Record, resolve: Callable[[str], Path]) -> HistoryConfig:
    server.read("history", fields.table, True)
    record = server.inner("history")
    default = HistoryConfig()
    file = record.read("file", fields.string, "")
    result = HistoryConfig(
        requests=record.read("requests", _requests, default.requests),
        file=resolve(file) if file else None,
        keep_s=record.read("keep", fields.positive_seconds, default.keep_s),
    )
    if record.has("keep") and not record.has("file"):
        mistakes.add(record.field_path("keep"), "there is no file; set `file` as well")
    record.finish()
    return result


def _requests(mistakes: Mistakes, path: str, value: Any) -> int | None:
    number = fields.positive_int(mistakes, path, value)
    if number is not None and number > REQUESTS_MAX:
        mistakes.expected(path, f"1 to {REQUESTS_MAX}", value)
        return None
    return number


def _kv_carryover(server: Record, resolve: Callable[[str], Path]) -> KvCarryoverConfig | None:
    """A table, or `false` for "not at all"."""
    if server.read("kv_carryover", fields.table_or_false, True) is False:
        return None
    record = server.inner("kv_carryover")
    default = KvCarryoverConfig()
    directory = record.read("directory", fields.string, "")
    result = KvCarryoverConfig(
        directory=resolve(directory) if directory else None,
        max_bytes=record.read("max_size", fields.size_bytes, default.max_bytes),
        persist=record.read("persist", fields.boolean, default.persist),
    )
    record.finish()
    return result
