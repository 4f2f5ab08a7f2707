"""What an engine says about itself, in terms that all types share."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec


class Health(msgspec.Struct, frozen=True):
    """`ok` is true for a 200; `detail` is for error messages: a status or the error.

    `silent`: the engine was asked, and no answer came, not even a wrong one. `refused`: it answered
    with this status, one of KEY_REFUSED.
    """

    ok: bool
    detail: str
    silent: bool = False
    refused: int | None = None


class EngineFacts(msgspec.Struct, frozen=True):
    """What a ready engine says about itself; None where it does not say.

    `slots`: requests that it works on at a time. `context`: tokens that one of them may use.
    `model_path`, `build`: what it runs, and which build of the engine it is. `template`: the chat
    template that it uses with tools. `media`: what it takes besides text, of `"vision"`, `"audio"`.
    """

    slots: int | None = None
    context: int | None = None
    model_path: str | None = None
    build: str | None = None
    template: str | None = None
    media: frozenset[str] | None = None


class SlotState(msgspec.Struct, frozen=True):
    """A slot; `tokens` of its conversation, None if it has not been used since the start; `cached`
    of the prompt that it works on, None if it works on none."""

    id: int
    tokens: int | None
    cached: int | None = None


class SlotFile(msgspec.Struct, frozen=True):
    """What an engine says about a slot that it wrote to a file, or read from one."""

    tokens: int
    size_bytes: int
    took_ms: float


class Reach(enum.Enum):
    """What a request can be told."""

    SLOT = "its slot, and whether it may reuse what is there"
    REUSE = "whether it may reuse what is there; it takes several slots"
    NOTHING = "nothing: its endpoint passes it on to no one"


class Place(NamedTuple):
    """Where a request goes. `slot` None: the engine chooses. `may_reuse`: what it holds. `wipe`:
    slots whose contents must be forgotten first. `is_told`: the request has to say so."""

    slot: int | None = None
    may_reuse: bool = True
    wipe: tuple[int, ...] = ()
    is_told: bool = False


class SlotRefused(Exception):
    """The engine did not save or restore a slot; the message says why."""


class SlotUnanswered(SlotRefused):
    """It gave no answer: it may be gone."""
