"""The GGUF files in a folder, and the models among them as `find_gguf` gives them.

The process that runs a configuration imports this, so it needs a little of the standard library.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter

_SHARD = re.compile(r"(.+)-([0-9]{5})-of-[0-9]{5}")
_SUFFIX = ".gguf"
_PROJECTOR = "mmproj"  # as llama.cpp tells them, which has no model in it
# What programs keep next to a file that they are still loading down; of some, the file itself has
# its full size from the start.
_UNFINISHED = (
    ".aria2",
    ".part",
    ".incomplete",
    ".crdownload",
    ".download",
    ".tmp",
    ".downloadinprogress",
)
_PARTS = tuple(_SUFFIX + end.lower() for end in _UNFINISHED)
_OF_THE_SYSTEM = "lost+found"  # at the top of a disk, for root alone


class Folder:
    """What lies below a folder, each folder of it read once. Full paths, sorted.

    `files`: those that end in `.gguf`. `unfinished`: those of them that are still being loaded
    down, and what is there of others. `dead_links`: links with such a name that lead nowhere.
    `folders`: that were read. `remarks`: what could not be looked at.
    """

    def __init__(self, top: str) -> None:
        """Raises OSError: the folder itself cannot be read."""
        if not stat.S_ISDIR(_mode(top)):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", top)
        self.files: list[str] = []
        self.unfinished: list[str] = []
        self.dead_links: list[str] = []
        self.folders: list[str] = []
        self.remarks: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        links = self._read(top, top)
        while links:  # after all folders themselves: so one that lies here is found by its own path
            link = links.pop(0)
            links = sorted({*links, *self._read(link, top)})
        for found in (self.files, self.unfinished, self.dead_links):
            found.sort()

    def _read(self, folder: str, top: str) -> list[str]:
        """Take in its files and those of the folders in it, each folder once; the links to others
        that are in them."""
        links: list[str] = []
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                if folder == top:
                    raise
                self.remarks.append(f"{folder} cannot be read: {error.strerror}")
                continue
            identity = status.st_dev, status.st_ino
            if identity in self._seen:
                continue
            self._seen.add(identity)
            self.folders.append(folder)
            beside = {entry.name for entry in entries}
            for entry in entries:
                if entry.name.startswith(".") or entry.name == _OF_THE_SYSTEM:
                    continue
                try:
                    if not entry.is_dir():
                        self._take(entry, beside)
                    else:
                        (links if entry.is_symlink() else waiting).append(entry.path)
                except OSError as error:  # a link to itself, or into a folder that is private
                    self.remarks.append(f"{entry.path} cannot be read: {error.strerror}")
        return links

    def _take(self, entry: os.DirEntry[str], beside: set[str]) -> None:
        name = entry.name.lower()
        is_part = name.endswith(_PARTS)
        if not name.endswith(_SUFFIX) and not is_part:
            return
        if not entry.is_file():
            if entry.is_symlink() and not os.path.exists(entry.path):
                self.dead_links.append(entry.path)
        elif not _is_text(entry.path):
            self.remarks.append(f"{entry.path!a}: the file's name is not one line of text")
        elif is_part:
            whole = entry.name[: entry.name.lower().rindex(_SUFFIX) + len(_SUFFIX)]
            if whole not in beside:
                self.unfinished.append(entry.path)
        elif any(entry.name + end in beside for end in _UNFINISHED):
            self.unfinished.append(entry.path)
        else:
            self.files.append(entry.path)


class Models:
    """The models below one folder. `files`: full paths, sorted; of a model in several files the
    first. `names`: of each, the name of its file, with its folders where two have the same.
    `remarks`: what could not be looked at."""

    def __init__(self, top: str) -> None:
        """Raises OSError: the folder itself cannot be read."""
        found = Folder(top)
        self.remarks = found.remarks
        self.files = [path for path in found.files if _is_model(os.path.basename(path))]
        self.names = _names(top, self.files)


def _mode(path: str) -> int:
    """0: there is nothing. Raises OSError: nobody may look."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_text(path: str) -> bool:
    try:
        return "\n" not in path and bool(path.encode())
    except UnicodeEncodeError:
        return False


def _is_model(name: str) -> bool:
    shard = _SHARD.fullmatch(_bare(name))
    return _PROJECTOR not in name.lower() and (shard is None or int(shard[2]) == 1)


def _bare(name: str) -> str:
    """Without its suffix, which may be in capitals."""
    return name[: -len(_SUFFIX)]


def _names(top: str, files: list[str]) -> list[str]:
    """Different ones. A file in the folder itself needs no folder in its name, so all others get
    theirs: what a model is called does not depend on which file comes first."""
    whole = [_bare(os.path.relpath(file, top)) for file in files]
    paths = [match[1] if (match := _SHARD.fullmatch(path)) else path for path in whole]
    # One in several files next to one of the same name that is whole.
    times = Counter(paths)
    paths = [w if times[path] > 1 else path for w, path in zip(whole, paths, strict=True)]
    bare = [os.path.basename(path) for path in paths]
    times = Counter(bare)
    return [path if times[name] > 1 else name for name, path in zip(bare, paths, strict=True)]
