"""What a value holds, all the way down, to tell whether something changed it."""

from __future__ import annotations

import enum

import msgspec


def picture(thing: object) -> object:
    """All that can be told apart of it, for a comparison."""
    match thing:
        case dict():
            return [(picture(key), picture(value)) for key, value in thing.items()]
        case list() | tuple():
            return [*map(picture, thing)]
        case msgspec.Struct():
            return [type(thing), *map(picture, msgspec.structs.astuple(thing))]
        case _ if hasattr(thing, "__dict__") and not isinstance(thing, enum.Enum):
            return [type(thing), picture(vars(thing))]
        case _:
            return repr(thing)
