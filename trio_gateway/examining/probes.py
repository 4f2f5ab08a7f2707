"""Probes: look at this machine for what a configuration needs. They block, and change nothing."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.memory_estimate import estimate_variants
from trio_gateway.config.missing import missing
from trio_gateway.config.readable_files import readable_secrets
from trio_gateway.config.schema import GatewayConfig, ListenAddress
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.engine.kv.carryover import default_folder
from trio_gateway.engine.ledger.file import LedgerUnavailable, own_ledger
from trio_gateway.engine.ledger.identity import identity_of
from trio_gateway.engine.loadable import ProgramKey, ask_programs
from trio_gateway.engine.process.open_files import hard_limit
from trio_gateway.engine.process.ports import is_address_in_use, listener_on
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.engine.variant_facts import facts_of
from trio_gateway.examining.examination import CACHES
from trio_gateway.examining.gateways import running_gateways
from trio_gateway.examining.models import files_of
from trio_gateway.examining.seen import Seen, SeenFile, SeenFolder, SeenPort
from trio_gateway.gguf.header import check_whole, read_data_end, read_header
from trio_gateway.gguf.metadata import BadGguf, check_beginning
from trio_gateway.hardware.devices import Reading
from trio_gateway.hardware.machine import this_machine

REACH_S = 3.0
_AT_A_TIME = 8


def look(config: GatewayConfig, answers: Callable[[ListenAddress | UnixAddress], bool]) -> Seen:
    """Everything. `answers`: whether a gateway answers at an address that is in use."""
    reading = this_machine().read()
    programs = ask_programs(config)
    return Seen(
        missing=tuple(missing(config)),
        readable=tuple(readable_secrets(config)),
        programs=programs,
        idle_gpus=_idle_gpus(config, reading),
        files=_files(config),
        ports={**_listeners(config, answers), **_engines_ports(config)},
        unreachable=_unreachable(config),
        folders=dict(_folders(config)),
        gateways=tuple(running_gateways()),
        reading=reading,
        memory=_memory(config),
        open_files=hard_limit(),
        tls_fault=_tls_fault(config),
    )


# -- models -----------------------------------------------------------------------------------


def _files(config: GatewayConfig) -> dict[Path, SeenFile]:
    """Those that are there and begin like one; `missing` tells of the others."""
    paths = dict.fromkeys(path for model in config.models for path in files_of(model))
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = zip(paths, pool.map(_file, paths), strict=True)
    return {path: file for path, file in found if file is not None}


def _file(path: Path) -> SeenFile | None:
    try:
        check_beginning(path)
    except BadGguf:
        return None
    try:
        header = read_header(path)
    except BadGguf as fault:
        try:
            check_whole(path, read_data_end(path))  # of a model's second file, it is all there is
        except BadGguf as error:
            return SeenFile(fault=str(error))
        return SeenFile() if "architecture" in str(fault) else SeenFile(fault=str(fault))
    try:
        check_whole(path, header.data_end)
    except BadGguf as error:
        return SeenFile(header, fault=str(error))
    return SeenFile(header, projectors=_projectors(path))


def _projectors(path: Path) -> tuple[str, ...]:
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return ()
    found = [n for n in names if "mmproj" in n.lower() and n.lower().endswith(".gguf")]
    return tuple(name for name in found if name != path.name)


def _memory(config: GatewayConfig) -> dict[VariantKey, tuple[int, str]]:
    """What each variant takes: declared, measured in an earlier run, or estimated."""
    each = [(model, variant) for model in config.models for variant in model.variants]
    unknown = [variant for _, variant in each if variant.memory_bytes is None]
    guessed = dict(zip(map(id, unknown), estimate_variants(unknown), strict=True))
    ledger = own_ledger()
    try:
        known = ledger.read() if ledger is not None else {}
    except LedgerUnavailable:
        known = {}
    found = {}
    for model, variant in each:
        key = VariantKey(model.name, variant.name)
        estimate = guessed.get(id(variant))
        if variant.memory_bytes is not None:
            found[key] = variant.memory_bytes, "declared"
            continue
        entry = known.get(identity_of(model, variant, config.secret_variables)) if known else None
        if entry is not None and entry.memory_bytes:
            found[key] = entry.memory_bytes, "measured"
        elif estimate is not None:
            found[key] = estimate.total_bytes, "estimated"
    return found


# -- programs ---------------------------------------------------------------------------------


def _idle_gpus(config: GatewayConfig, reading: Reading) -> frozenset[ProgramKey]:
    """Programs that say that they have no device, on a machine that has one."""
    if not reading.gpus:
        return frozenset()
    said = ask_programs(config, "--list-devices")
    return frozenset(
        key for key, answer in said.items() if has_no_device(answer.status, answer.text)
    )


def has_no_device(status: int | None, text: str) -> bool:
    """What llama-server says to `--list-devices`; builds that do not know it say nothing here."""
    _, heading, rest = text.partition("Available devices:")
    lines = [line for line in rest.splitlines() if line.startswith("  ") and ":" in line]
    return status == 0 and bool(heading) and not lines


# -- addresses --------------------------------------------------------------------------------


def _listeners(
    config: GatewayConfig, answers: Callable[[ListenAddress | UnixAddress], bool]
) -> dict[str, SeenPort]:
    found = {}
    for address in config.server.listen:
        if address.port and (port := _port(address.host, address.port)) is not None:
            is_gateway = bool(port.holder) and answers(address)
            found[str(address)] = SeenPort(port.fault, port.holder, port.pid, is_gateway)
    for unix in config.server.listen_unix:
        if unix.path.exists() and answers(unix):
            found[str(unix)] = SeenPort("in use", "", None, is_gateway=True)
    return found


def _engines_ports(config: GatewayConfig) -> dict[str, SeenPort]:
    """Of engines whose address is fixed; the gateway picks the others'."""
    found = {}
    for model in config.models:
        kind = kind_of(model.engine)
        for variant in model.variants:
            facts = facts_of(VariantKey(model.name, variant.name), model, variant, kind, None)
            if facts.endpoint is None or not variant.has_process:
                continue
            host, _, port = facts.endpoint.rpartition(" ")
            seen = _port(host, int(port))
            if seen is not None and seen.holder:
                found[f"{host}:{port}"] = seen
    return found


def _port(host: str, port: int) -> SeenPort | None:
    """None: it can be listened on."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return SeenPort(getattr(error, "strerror", None) or repr(error))
    for family, kind, _, _, address in addresses:
        with socket.socket(family, kind) as probe:
            # As the gateway does: the closed connections of the last one are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                fault = error.strerror or repr(error)
                if is_address_in_use(error):
                    pid, holder = listener_on(port)
                    return SeenPort(fault, holder, pid)
                return SeenPort(fault)
    return None


def _unreachable(config: GatewayConfig) -> dict[str, str]:
    urls = {url for m in config.models for v in m.variants for url in v.options.urls}
    urls.update(url for peer in config.peers for url in peer.options.urls)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        faults = zip(sorted(urls), pool.map(_connection_fault, sorted(urls)), strict=True)
    return {url: fault for url, fault in faults if fault}


def _connection_fault(url: str) -> str:
    """Why nothing can be connected to there; empty: something can."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), REACH_S).close()
    except (OSError, ValueError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


# -- the rest ---------------------------------------------------------------------------------


def _folders(config: GatewayConfig) -> Iterator[tuple[str, tuple[Path, SeenFolder]]]:
    server = config.server
    wanted: dict[str, Path | None] = {
        "server.dumps_dir": server.dumps_dir,
        "server.history.file": None if server.history.file is None else server.history.file.parent,
    }
    if server.kv_carryover is not None:
        wanted[CACHES] = server.kv_carryover.directory or default_folder()
    if (ledger := own_ledger()) is not None:
        wanted["what is remembered"] = ledger.path.parent
    for name, path in wanted.items():
        if path is not None:
            yield name, (path, _folder(path))


def _folder(path: Path) -> SeenFolder:
    """It, or what it would be made in."""
    there = path
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            return SeenFolder(f"{there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            return SeenFolder(f"{there} is read-only for this user")
        return SeenFolder(free_bytes=shutil.disk_usage(there).free)
    except OSError as error:
        return SeenFolder(error.strerror or repr(error))


def _tls_fault(config: GatewayConfig) -> str:
    tls = config.server.tls
    if tls is None or not (tls.certificate.is_file() and tls.key.is_file()):
        return ""  # which `missing` tells

    def no_password() -> NoReturn:
        raise ValueError("the key has a password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.certificate, tls.key, no_password
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return getattr(error, "reason", None) or str(error)
    return ""
