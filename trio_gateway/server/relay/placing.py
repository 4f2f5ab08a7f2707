"""Placing: a request is kept away from what its engine's slots hold of other API keys."""

from __future__ import annotations

from trio_gateway.engine.clients.facts import Place, Reach
from trio_gateway.engine.clients.llamacpp_place import (
    ANSWERS,
    members_of,
    reach_of,
    told,
    wipe_slot,
    with_place,
)
from trio_gateway.engine.errors import EngineLost
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.kv.slot_owners import SAMPLE_BYTES, SlotOwners
from trio_gateway.engine.lease import Lease
from trio_gateway.held import Held
from trio_gateway.server.api.endpoint import Body
from trio_gateway.server.api.large_body import LargeBody
from trio_gateway.server.relay.ask import Ask

WIPE_LIMIT_S = 5.0  # a slot that works on nothing forgets in milliseconds


def is_read(ask: Ask) -> bool:
    """Whether a slot reads it, as far as is known."""
    by_hand = ask.endpoint.body is Body.ANY and ask.method == "POST"
    return ask.prompt is not None or ask.form is not None or by_hand


async def placed(
    ask: Ask, lease: Lease, owners: SlotOwners, body: bytes | BodySource, stack: Held
) -> bytes | BodySource:
    """The body, told to keep away from what its slot holds of others.

    Raises:
        EngineLost
    """
    if ask.large is not None:
        return await _placed_large(ask, ask.large, lease, owners, body, stack)
    members, reach = {}, Reach.NOTHING
    if isinstance(body, bytes):
        members = members_of(body, ask.members if body is ask.body else None)
        reach = reach_of(ask.target, members)
    place = await _taken(ask, lease, owners, ask.body, reach, stack)
    if not place.is_told or not isinstance(body, bytes) or reach is Reach.NOTHING:
        return body
    return with_place(body, members, place)


async def _placed_large(
    ask: Ask,
    large: LargeBody,
    lease: Lease,
    owners: SlotOwners,
    body: bytes | BodySource,
    stack: Held,
) -> bytes | BodySource:
    asked = ((name, large.short_member(name)) for name in ANSWERS)
    answers = {name: value for name, value in asked if value is not None}
    reach = reach_of(ask.target, answers) if large.is_object else Reach.NOTHING
    place = await _taken(ask, lease, owners, large.beginning(SAMPLE_BYTES), reach, stack)
    if not place.is_told or reach is Reach.NOTHING:
        return body
    for name, value in told(place).items():
        large = large.replaced(name, value)
    return large.source(lease.client.served_name)


async def _taken(
    ask: Ask, lease: Lease, owners: SlotOwners, sample: bytes, reach: Reach, stack: Held
) -> Place:
    """Its place, with what idle slots hold of others forgotten, where it must be."""
    place = owners.place(ask.sender.permissions.owner, sample, reach)
    stack.callback(owners.leave, place)
    for slot in place.wipe:
        if not await wipe_slot(lease.client, slot, WIPE_LIMIT_S):
            raise EngineLost("the engine did not forget what it had read for another API key")
    return place
