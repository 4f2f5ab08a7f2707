"""What was found and is not offered as a model, and why."""

from __future__ import annotations

import enum

import msgspec


class Why(enum.Enum):
    """The value begins the sentence that says it."""

    BROKEN = "broken"
    INCOMPLETE = "incomplete"
    UNFINISHED = "still being loaded down"
    UNREADABLE = "cannot be read"
    NO_MEMORY = "no memory for it"
    UNKNOWN = "not a model that llama.cpp serves"
    VOCABULARY = "vocabulary only"
    ADAPTER = "LoRA adapter"
    PROJECTOR = "mmproj without a model"
    SPARE = "another mmproj of its model is taken"
    DRAFT = "draft model"
    DUPLICATE = "the same file"
    OLDER = "an older revision"
    ELSEWHERE = "runs elsewhere"
    TOO_MANY = "too many models"


# Somebody who put the file there should know; of the others there is nothing to mend.
FAULTS = frozenset(
    {Why.BROKEN, Why.INCOMPLETE, Why.UNREADABLE, Why.NO_MEMORY, Why.UNKNOWN, Why.TOO_MANY}
)


class Left(msgspec.Struct, frozen=True):
    """`path`: of the file, or a name. `more`: what else there is to say; may be empty."""

    path: str
    why: Why
    more: str = ""

    @property
    def reason(self) -> str:
        return f"{self.why.value}: {self.more}" if self.more else self.why.value
