"""The files that may be models, from all places, each file once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from trio_gateway.finding import ollama
from trio_gateway.finding.gguf_folder import Folder
from trio_gateway.finding.left import Left, Why
from trio_gateway.finding.places import Layout, Place
from trio_gateway.gguf.shards import files_of_model

_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf")
_SNAPSHOT = re.compile(r"(.*/models--[^/]+)/snapshots/([^/]+)/(.+)")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: all of it, the first is what an engine is given. `owner`: the program whose it is;
    empty: a folder that the user named. `name`: what that program calls it; empty: as its file.
    `projector`: that the program gives it."""

    files: tuple[str, ...]
    owner: str = ""
    name: str = ""
    projector: str | None = None

    @property
    def path(self) -> str:
        return self.files[0]


class Gathered(msgspec.Struct, frozen=True):
    """`watched`: the folders and files that another look would look at. `remarks`: what could not
    be looked at at all."""

    candidates: tuple[Candidate, ...]
    left: tuple[Left, ...]
    watched: tuple[str, ...]


def gather(places: Sequence[Place]) -> Gathered:
    """Blocks. Raises nothing: what cannot be read is in `left`."""
    found = list[Candidate]()
    left = dict[Left, None]()
    watched = dict[str, None]()
    seen = dict[tuple[int, int], Candidate]()
    for place in places:
        read = _of_ollama if place.layout is Layout.OLLAMA else _of_folder
        for entry in read(place, watched):
            new = _first_time(entry, seen) if isinstance(entry, Candidate) else entry
            if isinstance(new, Candidate):
                found.append(new)
            elif new is not None:
                left[new] = None
    return Gathered(tuple(found), tuple(left), tuple(watched))


def _first_time(
    candidate: Candidate, seen: dict[tuple[int, int], Candidate]
) -> Candidate | Left | None:
    """Itself; or what is to be said of it; or nothing, where two places have the same folder."""
    try:
        status = os.stat(candidate.path)
    except OSError as error:
        return Left(candidate.path, Why.UNREADABLE, error.strerror or "")
    first = seen.setdefault((status.st_dev, status.st_ino), candidate)
    if first is candidate:
        return candidate
    if (first.path, first.name) == (candidate.path, candidate.name):
        return None
    return Left(candidate.name or candidate.path, Why.DUPLICATE, f"as {first.name or first.path}")


def _of_ollama(place: Place, watched: dict[str, None]) -> Iterator[Candidate | Left]:
    read = ollama.read(place.folder)
    watched.update(dict.fromkeys(read.watched))
    for model in read.models:
        yield Candidate(
            files=(model.path,),
            owner=place.owner or "Ollama",
            name=model.name,
            projector=model.projector,
        )
    yield from read.left


def _of_folder(place: Place, watched: dict[str, None]) -> Iterator[Candidate | Left]:
    top = os.path.abspath(place.folder)
    if os.path.isfile(top):
        watched[top] = None
        yield from _grouped([top], place.owner)
        return
    try:
        folder = Folder(top)
    except OSError as error:
        yield Left(top, Why.UNREADABLE, error.strerror or "")
        return
    watched.update(dict.fromkeys((*folder.folders, *folder.files, *folder.unfinished)))
    current = [path for path in folder.files if not _is_older(path)]
    yield from _grouped(current, place.owner)
    yield from (Left(path, Why.OLDER) for path in folder.files if _is_older(path))
    yield from (Left(path, Why.UNFINISHED) for path in folder.unfinished)
    yield from (Left(path, Why.UNREADABLE, "a link to nothing") for path in folder.dead_links)
    for remark in folder.remarks:
        path, _, more = remark.partition(" cannot be read: ")
        yield Left(path, Why.UNREADABLE, more)


def _grouped(paths: Sequence[str], owner: str) -> Iterator[Candidate | Left]:
    """Files of one model together."""
    headless = dict[str, str]()
    there = set(paths)
    for path in paths:
        shard = _SHARD.fullmatch(path)
        if shard is None:
            yield Candidate(files=(path,), owner=owner)
        elif int(shard[2]) != 1:
            first = f"{shard[1]}-00001-of-{shard[3]}.gguf"
            if first not in there:
                headless.setdefault(first, path)
        elif int(shard[3]) > _MOST_SHARDS:
            yield Left(path, Why.BROKEN, f"claims to be one of {int(shard[3])} files")
        else:
            yield Candidate(files=tuple(map(str, files_of_model(Path(path)))), owner=owner)
    for first, path in headless.items():
        yield Left(path, Why.INCOMPLETE, f"{os.path.basename(first)} is missing")


_MOST_SHARDS = 1_000


def _is_older(path: str) -> bool:
    """Whether it is of a revision that Hugging Face's cache does not use any more, and has the same
    file in the one that it does."""
    match = _SNAPSHOT.fullmatch(path)
    if match is None:
        return False
    try:
        current = Path(match[1], "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    if "/" in current or current in ("", match[2]):
        return False
    return os.path.exists(os.path.join(match[1], "snapshots", current, match[3]))
