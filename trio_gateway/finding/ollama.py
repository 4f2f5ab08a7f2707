"""The models of Ollama: its manifests say which of its `blobs` are one. Those are GGUF files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trio_gateway.finding.left import Left, Why

_KIND = "application/vnd.ollama.image."
_LIBRARY = "registry.ollama.ai/library/"
_REGISTRY = "registry.ollama.ai/"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LONGEST = 1 << 20  # bytes of a manifest
_MOST = 5_000  # manifests


class OllamaModel(msgspec.Struct, frozen=True):
    """`name`: as Ollama's users write it, without `:latest`."""

    name: str
    path: str
    projector: str | None = None


class OllamaModels(msgspec.Struct, frozen=True):
    models: tuple[OllamaModel, ...]
    left: tuple[Left, ...]
    watched: tuple[str, ...]


class _Layer(msgspec.Struct):
    mediaType: str = ""  # noqa: N815 - as in the file
    digest: str = ""


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


def read(folder: Path) -> OllamaModels:
    """Blocks. Raises nothing."""
    models, left, watched = list[OllamaModel](), list[Left](), list[str]()
    for file in _manifests(folder / "manifests", left, watched):
        name = _name(os.path.relpath(file, folder / "manifests"))
        try:
            if os.path.getsize(file) > _LONGEST:
                raise ValueError("too large for a manifest")
            with open(file, "rb") as opened:
                manifest = msgspec.json.decode(opened.read(_LONGEST), type=_Manifest)
        except OSError as error:
            left.append(Left(file, Why.UNREADABLE, error.strerror or ""))
        except ValueError as error:
            left.append(Left(file, Why.BROKEN, f"not a manifest of Ollama: {error}"))
        else:
            found = _model(folder, name, manifest)
            if isinstance(found, Left):
                left.append(found)
            else:
                models.append(found)
    return OllamaModels(tuple(models), tuple(left), tuple(watched))


def _manifests(top: Path, left: list[Left], watched: list[str]) -> Iterator[str]:
    """Their files, sorted; links to folders are not followed."""
    waiting, files = [os.fspath(top)], list[str]()
    while waiting:
        folder = waiting.pop()
        try:
            entries = [*os.scandir(folder)]
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                left.append(Left(folder, Why.UNREADABLE, error.strerror or ""))
            continue
        watched.append(folder)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.is_file() and len(files) < _MOST:
                files.append(entry.path)
    watched += files
    yield from sorted(files)


def _model(folder: Path, name: str, manifest: _Manifest) -> OllamaModel | Left:
    blobs = dict[str, list[str]]()
    for layer in manifest.layers:
        match = _DIGEST.fullmatch(layer.digest)
        if match is not None and layer.mediaType.startswith(_KIND):
            path = os.fspath(folder / "blobs" / f"sha256-{match[1]}")
            blobs.setdefault(layer.mediaType.removeprefix(_KIND), []).append(path)
    weights = blobs.get("model", [])
    if not weights:
        return Left(name, Why.ELSEWHERE, "Ollama has no file of it")
    if len(weights) > 1 or "adapter" in blobs:
        return Left(name, Why.UNKNOWN, "it is made of several files, as only Ollama reads them")
    if not os.path.exists(weights[0]):
        return Left(name, Why.INCOMPLETE, f"{weights[0]} is missing")
    projector = next(iter(blobs.get("projector", [])), None)
    return OllamaModel(name, weights[0], projector)


def _name(path: str) -> str:
    """`registry.ollama.ai/library/qwen3/8b`: `qwen3:8b`."""
    name, _, tag = path.replace(os.sep, "/").rpartition("/")
    name = name.removeprefix(_LIBRARY).removeprefix(_REGISTRY)
    return name if tag == "latest" else f"{name}:{tag}"
