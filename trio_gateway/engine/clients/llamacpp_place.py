"""How a llama-server is told which slot a request takes, and whether it may reuse what is there.

The fields `id_slot` and `cache_prompt` of a body; an endpoint has them or drops them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import Place, Reach
from trio_gateway.rawjson import (
    Members,
    decode_or_none,
    members_or_none,
    replace_member,
    whole_number,
)

# Of /v1/messages, only what is Anthropic's reaches the slots.
_TELLS = frozenset({"chat/completions", "completions", "completion", "infill", "responses"})
ANSWERS = ("n", "n_cmpl")  # how many are asked for: each takes a slot


def reach_of(target: str, members: Mapping[str, bytes | msgspec.Raw]) -> Reach:
    """What a request for this path can be told. `members`: those of its body; ANSWERS will do."""
    if target.strip("/").removeprefix("v1/") not in _TELLS:
        return Reach.NOTHING
    asked = (members[name] for name in ANSWERS if name in members)
    return Reach.SLOT if all(map(_is_one, asked)) else Reach.REUSE


def _is_one(written: bytes | msgspec.Raw) -> bool:
    """Whether one answer is asked for; `null` is one."""
    return bytes(written) == b"null" or whole_number(decode_or_none(written)) == 1


def told(place: Place) -> dict[str, bytes]:
    """The members of a body that say its place."""
    slot = b"%d" % (-1 if place.slot is None else place.slot)
    return {"id_slot": slot} if place.may_reuse else {"id_slot": slot, "cache_prompt": b"false"}


def with_place(body: bytes, members: Members, place: Place) -> bytes:
    """The body, which says its place, whatever it said of it before."""
    said = told(place)
    if any(name in members for name in said):
        for name, value in said.items():
            body = replace_member(body, name, value)
        return body
    begin = body.index(b"{") + 1
    text = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in said.items())
    return b"".join((body[:begin], text, b"," if members else b"", body[begin:]))


async def wipe_slot(client: EngineClient, slot: int, timeout_s: float) -> bool:
    """Have a slot forget what it holds; whether it did. Never raises."""
    # By a prompt of one token: the action "erase" needs a folder for saved slots.
    said = {"prompt": [0], "n_predict": 0, "id_slot": slot, "cache_prompt": False}
    answer = await client.ask("POST", "/completion", timeout_s, msgspec.json.encode(said))
    return answer is not None and answer.status == 200


def members_of(body: bytes, known: Members | None) -> Members:
    """Those of a JSON body; none of anything else."""
    return (members_or_none(body) if known is None else known) or {}
