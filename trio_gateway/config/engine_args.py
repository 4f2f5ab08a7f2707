"""Reads an engine's options, as llama-server does, from its arguments and its environment.

An argument wins over a variable, and of several arguments the last one. `--ctx_size` is
`--ctx-size`. A word behind an option that takes a value is that value, whatever it looks like.
`--opt=value` is what the engine in the package takes as well; llama-server itself refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trio_gateway.config.server_options import (
    BATCH,
    BY_SPELLING,
    CONTEXT,
    DOCKER_REPO,
    EMBEDDING,
    HF_REPO,
    MODEL,
    ON,
    PARALLEL,
    PHYSICAL_BATCH,
    PROJECTOR,
    PROJECTOR_AUTO,
    PROJECTOR_URL,
    RERANKING,
    SWA_FULL,
    Given,
    ServerOption,
    Takes,
    canonical,
)

CONTEXT_STEP = 256  # tokens: llama.cpp rounds a context up to it
DEFAULT_BATCH, DEFAULT_PHYSICAL_BATCH = 2048, 512  # tokens
_PREFIX = "LLAMA_ARG_"

# The gateway gives these as arguments, so that what all engines inherit says nothing about them.
_OWN_PLACE = ("LLAMA_ARG_HOST", "LLAMA_ARG_PORT")
_ELSEWHERE = frozenset({"docker", "podman", "nerdctl", "ssh"})
# As `docker run` and `env` take them. What has blanks in it is a script.
_ASSIGNED = re.compile(r"(?:-e|--env=)?([A-Za-z]\w*)=(\S*)")
# `-c4096` and `-c 4096` in one argument, as the engine in the package takes them.
_GLUED = re.compile(r"(-[A-Za-z])([./].*|\s*[0-9].*)")
_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]+)")  # what follows is ignored, as by C++'s stoi
# In the words of a shell's or a container's command line, too.
_SWA_FULL_WORD = re.compile(rf"(?<![^\s\"'=]){SWA_FULL.name}(?![^\s\"'=;&|])")
_SWA_FULL_SET = re.compile(rf"\b{SWA_FULL.variables[0]}=(\w+)")
_NO = frozenset({"", "0", "false", "off", "disabled"})


class EngineArgs:
    """The options of one engine: its arguments in `words`, and its variables.

    Variables that are assigned among the arguments (`docker run -e NAME=value`, `env NAME=value`)
    count, too.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        self.words = words
        self._variables = dict(variables or {})
        self._given: dict[ServerOption, Given] = {}
        for found in _parse(words):
            if isinstance(found, tuple):
                self._variables[found[0]] = found[1]
            elif found.value is not None or found.option.takes is Takes.NOTHING:
                self._given.pop(found.option, None)  # so that they are in the order of their last
                self._given[found.option] = found
            else:
                self._given.setdefault(found.option, found)

    def variable(self, name: str) -> str:
        """Its value; empty without one."""
        return self._variables.get(name, "")

    def given(self, option: ServerOption) -> Given | None:
        """How it was last given: by an argument or, without one, by a variable; None: not at all.
        A flag whose variable says no is not given."""
        found = self._given.get(option)
        return found if found is not None else self._by_variable(option)

    def last_of(self, *options: ServerOption) -> Given | None:
        """Of options that say the same the one that wins: the last argument or, without one, the
        last variable in the order of these options; None: none was given."""
        words = [found for found in self._given.values() if found.option in options]
        if words:
            return words[-1]
        return next(filter(None, map(self._by_variable, reversed(options))), None)

    def has(self, *options: ServerOption) -> bool:
        """Whether any of them was given, switched off or not."""
        return any(self.given(option) is not None for option in options)

    def value(self, option: ServerOption) -> str | None:
        """None: not given, or without a value."""
        found = self.given(option)
        return None if found is None else found.value

    def values(self, option: ServerOption) -> list[str]:
        """Of an option that may be given more than once, or else by a variable."""
        found = [
            given.value
            for given in _parse(self.words)
            if not isinstance(given, tuple) and given.option is option and given.value is not None
        ]
        value = self.value(option)
        return found or ([] if value is None else [value])

    def number(self, option: ServerOption) -> int | None:
        """A whole number as llama-server reads it; None: not given, or something else."""
        match = _WHOLE_NUMBER.match(self.value(option) or "")
        return int(match[1]) if match else None

    def switch(self, option: ServerOption) -> bool | None:
        """Whether it was switched on or off; None: neither."""
        found = self.given(option)
        return None if found is None else found.is_on

    def is_on(self, option: ServerOption) -> bool:
        return self.switch(option) is True

    @property
    def is_embedding(self) -> bool:
        """Whether the engine serves embeddings or ranks documents, and no chats."""
        return self.is_on(EMBEDDING) or self.is_on(RERANKING)

    @property
    def has_projector(self) -> bool | None:
        """Whether it can look at images; None: not known, as what is downloaded may bring one."""
        if self.has(PROJECTOR, PROJECTOR_URL):
            return True
        if self.switch(PROJECTOR_AUTO) is False:
            return False
        return False if self.has(MODEL) and not self.has(HF_REPO, DOCKER_REPO) else None

    @property
    def slots(self) -> int | None:
        """As given; None: the engine chooses, four over one cache."""
        slots = self.number(PARALLEL)
        return slots if slots is not None and slots > 0 else None

    @property
    def context(self) -> int | None:
        """Tokens of all slots together, as given; None: what the model was trained for."""
        context = self.number(CONTEXT)
        return context if context is not None and context > 0 else None

    @property
    def physical_batch(self) -> int:
        """Tokens that are computed at once: an input that cannot be split has no more."""
        given = self.number(PHYSICAL_BATCH)
        return min(DEFAULT_PHYSICAL_BATCH if given is None else given or self.batch, self.batch)

    @property
    def batch(self) -> int:
        """Tokens that are submitted at once."""
        return self.number(BATCH) or DEFAULT_BATCH

    def _by_variable(self, option: ServerOption) -> Given | None:
        for variable in option.variables:
            if option.negations and variable.replace("_ARG_", "_ARG_NO_") in self._variables:
                return Given(option, variable.replace("_ARG_", "_ARG_NO_"), None, False)
            if not (value := self._variables.get(variable)):
                continue
            if option.takes is Takes.VALUE:
                return Given(option, variable, value)
            if value in ON:
                return Given(option, variable)
            if option.negations:
                return Given(option, variable, None, False)
        return None


def runs_elsewhere(binary: str) -> bool:
    """Whether a program runs its arguments where files and variables are others."""
    return Path(binary).name in _ELSEWHERE


def inherited_options(environment: Mapping[str, str], wishes: Mapping[str, bool]) -> dict[str, str]:
    """Variables of the gateway's environment that are options to an engine. `wishes`: by name,
    whether it inherits a variable at all."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_PREFIX) and name not in _OWN_PLACE and wishes.get(name, True)
    }


def _parse(words: Sequence[str]) -> Iterator[Given | tuple[str, str]]:
    """The options in their order, and what is assigned to variables."""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        known = BY_SPELLING.get(canonical(name))
        if known is None:
            if match := _GLUED.fullmatch(word):
                known = BY_SPELLING.get(match[1])
                if known is not None and known[0].takes is Takes.VALUE:
                    yield Given(known[0], match[1], match[2])
            elif equals and (match := _ASSIGNED.fullmatch(word)):
                yield match[1], match[2]
            continue
        option, is_on = known
        if option.takes is Takes.NOTHING:
            yield Given(option, name, None, is_on)
        elif equals:
            yield Given(option, name, value)
        else:
            yield Given(option, name, next(rest, None))
            if option.takes is Takes.TWO_VALUES:
                next(rest, None)


def swa_full(args: EngineArgs) -> str | None:
    """How an engine was told to keep all of the cache of a sliding window; None if it was not, as
    far as anything in its arguments and variables says."""
    if any(_SWA_FULL_WORD.search(word.replace("_", "-")) for word in args.words):
        return SWA_FULL.name
    in_words = (found[1] for word in args.words for found in _SWA_FULL_SET.finditer(word))
    values = (args.variable(SWA_FULL.variables[0]), *in_words)
    return SWA_FULL.variables[0] if any(value.lower() not in _NO for value in values) else None
