"""Entry: what was measured of one variant, as the ledger keeps it. Pure."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from trio_gateway.engine.scheduling.events import Known
from trio_gateway.engine.scheduling.forecast import has_moved

# How long a verdict that restores do not help is believed: it costs its model all later ones.
VERDICT_HOLDS_S = 30 * 86400.0

# What is beyond these was measured by nobody.
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # seconds of Unix time
_TEXT_MAX = 500
Text = Annotated[str, msgspec.Meta(max_length=_TEXT_MAX)]


class News(enum.Enum):
    """How much has changed."""

    NONE = "nothing"
    SPEED = "a speed that was known is another by now"
    FACT = "something else"


class Verdict(msgspec.Struct, frozen=True):
    """Whether a restored KV cache helps. `said`: the numbers that showed it."""

    helps: bool
    said: Text
    at: Moment = 0.0


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """None: not measured. `at`: when something was, last. `name`: the variant's at that time, for
    people. `build`: what its engine said of itself.

    `memory_bytes`: the most that its engines held. `wake_s`: what a start took whose machine had to
    be woken. `context`, `slots`, `shared_tokens`: what its
    engine said. Speeds are tokens a second; those of `kv_save` and `kv_restore` bytes a second.
    `tools`, `images`: whether a request with some was answered.
    """

    at: Moment
    name: Text = ""
    build: Text = ""
    memory_bytes: Bytes | None = None
    load_s: Positive | None = None
    wake_s: Positive | None = None
    context: Count | None = None
    slots: Count | None = None
    shared_tokens: Count | None = None
    prompt_speed: Positive | None = None
    speed: Positive | None = None
    kv_bytes_per_token: Positive | None = None
    kv_save: Positive | None = None
    kv_restore: Positive | None = None
    restore: Verdict | None = None
    tools: bool | None = None
    images: bool | None = None

    def after(self, before: Entry | None) -> Entry:
        """This one, newer, with what only the one before has. Another build makes that void."""
        if before is None or before.build != self.build:
            return self
        values = {
            name: old
            for name in self.__struct_fields__
            if getattr(self, name) is None and (old := getattr(before, name)) is not None
        }
        return msgspec.structs.replace(
            self,
            memory_bytes=_most(self.memory_bytes, before.memory_bytes),
            **{k: v for k, v in values.items() if k != "memory_bytes"},
        )

    def news_to(self, before: Entry | None) -> News:
        """What somebody who has read the one before does not know."""
        if before is None:
            return News.FACT
        differ = {
            name
            for name in self.__struct_fields__
            if name != "at" and _differ(getattr(self, name), getattr(before, name))
        }
        if not differ:
            return News.NONE
        refined = {name for name in differ & _SPEEDS if getattr(before, name) is not None}
        return News.SPEED if differ == refined else News.FACT

    @property
    def known(self) -> Known:
        """What the scheduler goes by."""
        return Known(
            memory_bytes=self.memory_bytes,
            load_s=self.load_s,
            wake_s=self.wake_s,
            slots=self.slots,
            shared_tokens=self.shared_tokens,
            prompt_speed=self.prompt_speed,
            speed=self.speed,
        )

    def no_help(self, now_s: float) -> str | None:
        """What showed that restores do not help, as far as that still holds; None: nothing.
        `now_s`: Unix time."""
        found = self.restore
        if found is None or found.helps or found.at + VERDICT_HOLDS_S < now_s:
            return None
        return found.said


_SPEEDS = frozenset(
    {"prompt_speed", "speed", "kv_bytes_per_token", "kv_save", "kv_restore", "load_s", "wake_s"}
)


def short_text(text: str) -> str:
    """As it can be written: names come from elsewhere."""
    return text[:_TEXT_MAX].encode("utf-8", "replace").decode()


def _most(one: int | None, other: int | None) -> int | None:
    known = [size for size in (one, other) if size is not None]
    return max(known) if known else None


def _differ(now: object, before: object) -> bool:
    if isinstance(now, float) and isinstance(before, float):
        return has_moved(now, before)
    if isinstance(now, Verdict) and isinstance(before, Verdict):
        return now.helps is not before.helps
    return now != before
