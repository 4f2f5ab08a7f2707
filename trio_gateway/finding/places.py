"""Where programs keep models on this machine, by their own variables and defaults."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec


class Layout(enum.Enum):
    """How models lie in a folder."""

    FILES = enum.auto()  # `.gguf` files, anywhere below it
    OLLAMA = enum.auto()  # `manifests`, which name files in `blobs`


class Place(msgspec.Struct, frozen=True):
    """`owner`: the program whose folder it is; empty: the user named it."""

    folder: Path
    owner: str = ""
    layout: Layout = Layout.FILES


def given_place(folder: Path) -> Place:
    """A folder, or a file, that the user named."""
    is_ollama = all(os.path.isdir(folder / name) for name in ("manifests", "blobs"))
    layout = Layout.OLLAMA if is_ollama else Layout.FILES
    return Place(Path(os.path.abspath(folder)), "", layout)


def is_there(place: Place) -> bool:
    """Whether there is a folder, be it one that cannot be read."""
    try:
        os.stat(place.folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def usual_places(environ: Mapping[str, str], home: Path, platform: str) -> list[Place]:
    """All that there may be, each once. `platform`: as `sys.platform` says it."""
    is_mac = platform == "darwin"
    caches = _path(environ, "XDG_CACHE_HOME", home) or home / ".cache"
    places = [
        Place(_huggingface(environ, home, caches), "Hugging Face"),
        Place(
            _path(environ, "LLAMA_CACHE", home)
            or (home / "Library/Caches/llama.cpp" if is_mac else caches / "llama.cpp"),
            "llama.cpp",
        ),
        *(Place(folder, "LM Studio") for folder in _lm_studio(home, caches)),
        *(Place(folder, "Ollama", Layout.OLLAMA) for folder in _ollama(environ, home)),
        *(Place(folder, "Jan") for folder in _jan(environ, home, is_mac=is_mac)),
    ]
    return [*{place.folder: place for place in reversed(places)}.values()][::-1]


def _huggingface(environ: Mapping[str, str], home: Path, caches: Path) -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if (folder := _path(environ, variable, home)) is not None:
            return folder
    return (_path(environ, "HF_HOME", home) or caches / "huggingface") / "hub"


def _lm_studio(home: Path, caches: Path) -> Iterator[Path]:
    own = home / ".lmstudio"
    pointer = _text(home / ".lmstudio-home-pointer")
    for folder in (Path(pointer), own) if pointer else (own,):
        try:
            settings = msgspec.json.decode(_text(folder / "settings.json") or "{}")
        except ValueError:
            settings = {}
        chosen = settings.get("downloadsFolder") if isinstance(settings, dict) else None
        yield Path(chosen) if isinstance(chosen, str) and chosen else folder / "models"
        yield folder / ".internal/bundled-models"
    yield caches / "lm-studio/models"


def _ollama(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    if (folder := _path(environ, "OLLAMA_MODELS", home)) is not None:
        yield folder
        return
    yield home / ".ollama/models"
    yield Path("/usr/share/ollama/.ollama/models")  # of its service on Linux
    yield Path("/var/lib/ollama/models")


def _jan(environ: Mapping[str, str], home: Path, *, is_mac: bool) -> Iterator[Path]:
    if is_mac:
        data = home / "Library/Application Support/Jan/data"
    else:
        data = (_path(environ, "XDG_DATA_HOME", home) or home / ".local/share") / "Jan/data"
    yield data / "llamacpp/models"
    yield data / "models"
    yield home / "jan/models"


def _path(environ: Mapping[str, str], variable: str, home: Path) -> Path | None:
    value = environ.get(variable, "")
    if not value:
        return None
    return home / value[2:] if value.startswith("~/") else Path(value)


def _text(file: Path) -> str:
    """Empty: it is not there, or is no text."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
