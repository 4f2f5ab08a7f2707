"""What a gateway in front says of its requests counts for the person, if its key may say it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, header
from tests.support.fakes import FakeEngines
from tests.support.openai_site import Site, running
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.priority import Priority
from trio_gateway.config.schema import EngineOptions, GatewayConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.access.forwarded import NAME_MAX, as_header, id_in, person_in

ID = "0123456789abcdef"


def two_keys(*, forwards: bool, **more: Any) -> GatewayConfig:
    front = ApiKey(name="front", secret="of-the-front", forwards=forwards, **more)
    tv = ApiKey(name="tv", secret="of-the-tv")
    keys = (front, tv, ApiKey(name="laptop", secret="of-the-laptop", admin=True))
    return config(model("m"), access=AccessConfig(api_keys=keys, allowed_hosts=("gateway",)))


def by_front(person: str = "alice", **more: str) -> dict[str, str]:
    return {"X-Api-Key": "of-the-front", "X-Gateway-Client": person, **more}


LAPTOP = {"X-Api-Key": "of-the-laptop"}


class RealClients(FakeEngines):
    def manager(self, given: GatewayConfig) -> EngineManager:
        return EngineManager(given, launch=self.launch)


@pytest.mark.parametrize(
    ("forwards", "order"),
    [
        (True, ["front/alice", "front/bob", "laptop", "front/alice"]),
        (False, ["front", "laptop", "front", "front"]),
    ],
)
async def test_fairness_counts_the_person_and_not_the_front(
    autojump_clock: Clock, forwards: bool, order: list[str]
) -> None:
    async with running_stack(two_keys(forwards=forwards)) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 100.0, DONE], [EVENT, 1000.0, DONE]]
        for _ in range(2):  # the fake engine's places
            nursery.start_soon(stack.post, CHAT, chat(stream=True), {"X-Api-Key": "of-the-tv"})
            await trio.sleep(1)
        for sent in (by_front(), by_front(), by_front("bob"), LAPTOP):
            nursery.start_soon(stack.post, CHAT, chat(), sent)
            await trio.sleep(1)
        await trio.sleep(200)
        assert [row.client for row in stack.gateway.book.recent] == ["tv", *order]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_record_names_the_person_and_has_the_id_of_the_front(
    autojump_clock: Clock,
) -> None:
    async with running_stack(two_keys(forwards=True)) as stack:
        answer = await stack.post(CHAT, chat(), by_front(**{"X-Request-Id": ID}))
        assert header(answer, "X-Gateway-Request-Id") == ID
        # As the front tries again: each request here has an id of its own.
        again = await stack.post(CHAT, chat(), by_front("bob", **{"X-Request-Id": ID}))
        assert header(again, "X-Gateway-Request-Id") != ID
        rows = [*stack.gateway.book.recent]
        assert [(row.client, row.key) for row in rows] == [
            ("front/alice", "front"),
            ("front/bob", "front"),
        ]
        assert rows[0].id == ID
        used = await stack.http.request(
            "GET", "http://gateway/gateway/usage?by=client", headers=[*LAPTOP.items()]
        )
        names = {row["client"] for row in json.loads(used.content)["usage"]}
        assert names == {"front/alice", "front/bob"}


async def test_conversations_are_told_as_the_front_tells_them(autojump_clock: Clock) -> None:
    told = by_front(**{"X-Gateway-Affinity": ID})
    async with running_stack(two_keys(forwards=True)) as stack:
        await stack.post(CHAT, chat(), told)
        await stack.post(CHAT, chat(), {**told, "X-Session-Id": "its-name"})
        await stack.post(CHAT, chat(), {**told, "X-Gateway-Affinity": "not an id"})
        await stack.post(CHAT, chat(), {**told, **LAPTOP})  # its key speaks for nobody
        found = [row.conversation for row in stack.gateway.book.recent]
    assert found == [ID, "its-name", None, None]


async def test_without_the_right_to_it_nothing_of_it_counts(autojump_clock: Clock) -> None:
    async with running_stack(two_keys(forwards=False)) as stack:
        answer = await stack.post(CHAT, chat(), by_front(**{"X-Request-Id": ID}))
        assert answer.status == 200
        assert header(answer, "X-Gateway-Request-Id") != ID
        (row,) = stack.gateway.book.recent
        assert row.client == "front"


async def test_the_limits_of_the_key_hold_for_all_behind_it(autojump_clock: Clock) -> None:
    given = two_keys(forwards=True, models=frozenset({"n"}), priority=Priority.BATCH)
    async with running_stack(given) as stack:
        urgent = by_front(**{"X-Gateway-Priority": "interactive"})
        assert (await stack.post(CHAT, chat(), urgent)).status == 403
        (row,) = stack.gateway.book.recent
        assert (row.client, row.priority) == ("front/alice", Priority.BATCH)


def test_persons_behind_one_front_are_owners_of_their_own() -> None:
    keys = (ApiKey(name="front", secret="x", forwards=True),)
    assert config(model("m"), access=AccessConfig(api_keys=keys)).server.keeps_owners_apart
    plain = (ApiKey(name="front", secret="x"),)
    assert not config(model("m"), access=AccessConfig(api_keys=plain)).server.keeps_owners_apart


@pytest.mark.parametrize("is_gateway", [False, True])
async def test_who_asks_is_told_to_another_gateway_and_to_nobody_else(
    is_gateway: bool,
) -> None:
    async with running(Site()) as site:
        there = EngineOptions(urls=(site.url,), served_name="theirs", gateway=is_gateway)
        elsewhere = variant(4096, binary="", options=there, parallel=64, memory_bytes=0)
        remote = model("m", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
        keys = (ApiKey(name="älice", secret="of-her"),)
        access = AccessConfig(api_keys=keys, allowed_hosts=("gateway",))
        given_remote = config(remote, pools={"remote": 1000}, access=access)
        async with trio.open_nursery() as nursery:
            stack = Stack(nursery, RealClients(), given_remote)
            await nursery.start(stack.gateway.run)
            sent = {"X-Api-Key": "of-her", "X-Gateway-Priority": "batch", "X-Gateway-Client": "bob"}
            async with stack.http:
                assert (await stack.post(CHAT, chat(), sent)).status == 200
            stack.gateway.end_now("the test is over")
            nursery.cancel_scope.cancel(reason="the test is over")
    head = site.heads[-1].decode("latin-1").lower()
    assert "of-her" not in head
    assert "bob" not in head
    found = dict(
        re.findall(r"\r\n(x-gateway-client|x-gateway-priority|x-request-id): ([^\r]*)", head)
    )
    if not is_gateway:
        assert found == {}
        return
    (row,) = stack.gateway.book.recent
    assert found == {
        "x-gateway-client": "%c3%a4lice",
        "x-gateway-priority": "batch",
        "x-request-id": row.id,
    }


@pytest.mark.parametrize("name", ["alice", "älice", "a%20b", "front/alice", "10.0.0.7", "key 1f0c"])
def test_a_name_comes_as_it_was_sent(name: str) -> None:
    assert person_in({b"x-gateway-client": as_header(name)}) == name


@pytest.mark.parametrize("said", [b"", b"  ", b"a%0ab", b"a\x00", b"%ff", b"a" * (NAME_MAX + 1)])
def test_what_is_no_name_is_the_front_itself(said: bytes) -> None:
    assert person_in({b"x-gateway-client": said}) is None
    assert id_in({b"x-request-id": said}) is None


def test_a_long_name_is_cut() -> None:
    assert person_in({b"x-gateway-client": as_header("ä" * 1000)}) == "ä" * NAME_MAX
