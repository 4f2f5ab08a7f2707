"""A command line of another program: its words, what it starts, and what a request may use of it.

Pure, but for what `trained` reads.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePath

import msgspec

from trio_gateway.config.engine_args import EngineArgs, runs_elsewhere
from trio_gateway.config.server_options import (
    CHAT_TEMPLATE_FILE,
    DRAFT,
    HOST,
    LORA,
    MODEL,
    PORT,
    PROJECTOR,
    UNIFIED_KV,
    canonical,
)
from trio_gateway.converting.description import NotConvertible

PORT_WORD = "${PORT}"
_LLAMA_SERVER = re.compile(r"(?:ik[-_])?llama[-_.]?(?:cpp[-_])?server.*|llamafile.*")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh"})
# They run what follows, and pass on arguments that are added at the end.
_WRAPPERS = frozenset(
    {"env", "nice", "ionice", "numactl", "taskset", "stdbuf", "chrt", "setsid", "nohup"}
)
_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::", "[::]"})
_CONTEXTS = (
    "--max-model-len", "--context-length", "--max-seq-len", "--max-sequence-length", "--ctx-size",
    "--ctx", "--context-size", "--max-context-length", "-c",
)  # fmt: skip
_PORTS = ("--port", "--listen-port", "-p", "--publish", "--http-port")
_HUMAN = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
_FILES = (MODEL, PROJECTOR, DRAFT, LORA, CHAT_TEMPLATE_FILE)
_ENDPOINTS = {
    "whisper-server": ("audio/transcriptions",),
    "sd-server": ("images/generations", "images/edits"),
}

# The context that the model in a file was trained for; None: not known.
Trained = Callable[[str], int | None]


class Command(msgspec.Struct, frozen=True):
    """The words of a command line, the program first."""

    words: tuple[str, ...]

    @property
    def binary(self) -> str:
        return self.words[0]

    @property
    def args(self) -> EngineArgs:
        return EngineArgs(self.words[1:])

    @property
    def in_container(self) -> bool:
        return runs_elsewhere(self.binary)

    @property
    def program(self) -> str:
        """What it runs in the end, as far as that can be told: the base of its name."""
        words = [*self.words]
        while words and (_base(words[0]) in _WRAPPERS):
            words.pop(0)
            while words and not _LLAMA_SERVER.fullmatch(_base(words[0])) and _is_passed(words[0]):
                words.pop(0)
        return _base(words[0]) if words else ""

    @property
    def is_llama_server(self) -> bool:
        """Whether options can be added to it as to a llama-server. In a container they cannot: it
        listens at another port than its client says."""
        if self.in_container:
            return False
        if self.program in _SHELLS:
            return any("llama-server" in word for word in self.words[1:])
        return _LLAMA_SERVER.fullmatch(self.program) is not None

    @property
    def has_port(self) -> bool:
        return any(PORT_WORD in word for word in self.words)

    @property
    def fixed_port(self) -> int | None:
        """The port that it names itself."""
        for option, value in self._pairs():
            match = re.fullmatch(r"(?:.*:)?(\d+):\d+|(\d+)", value)
            if option in _PORTS and match:
                return int(match[1] or match[2])
        return None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What it serves, if it is known to serve nothing else."""
        return _ENDPOINTS.get(self.program.removesuffix(".exe"), ())

    @property
    def has_relative_files(self) -> bool:
        values = filter(None, map(self.args.value, _FILES))
        return any(not value.startswith(("/", "~", "$")) for value in values)

    @property
    def served_name(self) -> str | None:
        return next((v for option, v in self._pairs() if option == "--served-model-name"), None)

    def context(self, trained: Trained) -> int | None:
        """Tokens that one request may use; None: nothing says it."""
        args = self.args
        if (total := args.context) is not None:
            slots = args.slots or 1
            return total if args.is_on(UNIFIED_KV) else max(1, total // slots)
        for option, value in self._pairs():
            match = re.fullmatch(r"(\d+)([kKmM]?)", value)
            if option in _CONTEXTS and match and int(match[1]) > 0:
                return int(match[1]) * _HUMAN.get(match[2], 1)
        file = args.value(MODEL)
        found = trained(file) if file and not self.in_container else None
        if found and args.slots and not args.is_on(UNIFIED_KV):
            return max(1, found // args.slots)
        return found

    def without_address(self) -> tuple[Command, str | None]:
        """Without what the gateway adds itself, and a host that other machines reach, if that was
        among it."""
        kept, dropped, open_host = [self.binary], False, None
        words = self.words[1:]
        for index, word in enumerate(words):
            if dropped:
                dropped = False
                continue
            name, equals, value = word.partition("=")
            if canonical(name) not in (*PORT.spellings, *HOST.spellings):
                kept.append(word)
                continue
            value = value if equals else (words[index + 1] if index + 1 < len(words) else "")
            own = value == PORT_WORD or value in _THIS_MACHINE or value in _ALL_ADDRESSES
            if value in _ALL_ADDRESSES:
                open_host = value
            if own:
                dropped = not equals
            else:
                kept.append(word)
        return Command(tuple(kept)), open_host

    def _pairs(self) -> list[tuple[str, str]]:
        """Each option with what stands behind it, or behind its `=`."""
        found = []
        for index, word in enumerate(self.words[1:], start=1):
            name, equals, value = word.partition("=")
            if word.startswith("-"):
                following = self.words[index + 1] if index + 1 < len(self.words) else ""
                found.append((canonical(name), value if equals else following))
        return found


def split_command(where: str, text: str) -> Command:
    """As llama-swap does: lines of comments are left out, a backslash at the end of a line joins it
    to the next, and what remains is split as by a shell, which it never sees.

    Raises:
        NotConvertible: a quote is not closed, or there is nothing.
    """
    lines = []
    for line in without_comments(text).split("\n"):
        bare = line.strip()
        lines.append(bare.removesuffix("\\") + " " if bare.endswith("\\") else line)
    try:
        words = shlex.split("\n".join(lines), comments=False, posix=True)
    except ValueError:
        raise NotConvertible(f"{where}: a quote in it is not closed") from None
    if not words or not words[0]:
        raise NotConvertible(f"{where}: an empty command")
    return Command(tuple(words))


def without_comments(text: str) -> str:
    """Without the lines that are comments."""
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith("#"))


def only_ends_its_process(words: Sequence[str]) -> bool:
    """Whether a command for stopping does what the gateway does anyway."""
    return _base(words[0]) in ("kill", "taskkill") and words[-1] == "${PID}"


def _base(word: str) -> str:
    return PurePath(word.replace("\\", "/")).name


def _is_passed(word: str) -> bool:
    """Whether it is an option or an operand of a wrapper: `-n`, `10`, `NAME=value`, `0-7`."""
    return word.startswith("-") or "=" in word or re.fullmatch(r"[0-9,:-]+", word) is not None
