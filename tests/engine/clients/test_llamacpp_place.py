"""What a llama-server is told of a request's slot, and that it keeps prompts nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.llama import Llama, engine
from tests.support.schema_values import variant
from trio_gateway.engine.clients.facts import Place, Reach
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.clients.llamacpp_place import members_of, reach_of, wipe_slot, with_place


def told(body: bytes, place: Place) -> Any:
    found = with_place(body, members_of(body, None), place)
    names = [name for name, _ in json.loads(found, object_pairs_hook=list)]
    assert names.count("id_slot") == 1
    assert names.count("cache_prompt") <= 1
    return json.loads(found)


@pytest.mark.parametrize(
    ("target", "members", "reach"),
    [
        ("/v1/chat/completions", {}, Reach.SLOT),
        ("/v1/completions", {"n": b"1"}, Reach.SLOT),
        ("/v1/responses", {"n": b"null"}, Reach.SLOT),
        ("/infill", {}, Reach.SLOT),
        ("/completion", {"n_cmpl": b"3"}, Reach.REUSE),
        ("/v1/chat/completions", {"n": b"2"}, Reach.REUSE),
        ("/v1/chat/completions", {"n": b"1.0", "n_cmpl": b"1e0"}, Reach.SLOT),
        ("/v1/chat/completions", {"n": b"2.0"}, Reach.REUSE),
        ("/v1/chat/completions", {"n_cmpl": b"true"}, Reach.REUSE),
        ("/v1/chat/completions", {"n_cmpl": b""}, Reach.REUSE),
        ("/v1/messages", {}, Reach.NOTHING),
        ("/v1/audio/transcriptions", {}, Reach.NOTHING),
    ],
)
def test_an_endpoint_passes_a_place_on_or_does_not(
    target: str, members: dict[str, bytes], reach: Reach
) -> None:
    assert reach_of(target, {n: msgspec.Raw(v) for n, v in members.items()}) is reach


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"a":1}',
        b' {"id_slot": 7, "a": 1}',
        b'{"cache_prompt":true,"a":1,"id_slot":null}',
        b'{"id\\u005fslot":5,"a":1}',
        b'{"id_slot":1,"id_slot":2}',
    ],
)
def test_a_body_says_its_place_and_nothing_else_of_it(body: bytes) -> None:
    before = {k: v for k, v in msgspec.json.decode(body).items() if k == "a"}
    barred = told(body, Place(3, False))
    assert barred == {**before, "id_slot": 3, "cache_prompt": False}
    assert told(body, Place(None, False))["id_slot"] == -1
    may = told(body, Place(0, True))
    assert may["id_slot"] == 0
    assert may.get("cache_prompt", True) is True


async def test_a_slot_is_wiped_by_a_prompt_of_one_token() -> None:
    server = Llama({"/completion": (200, {"content": ""})})
    async with engine(server) as client:
        assert await wipe_slot(client, 2, 1.0)
        (body,) = map(msgspec.json.decode, server.bodies)
        assert (body["id_slot"], body["cache_prompt"], body["n_predict"]) == (2, False, 0)
        server.answers["/completion"] = (500, {})
        assert not await wipe_slot(client, 2, 1.0)


@pytest.mark.parametrize(
    ("binary", "args", "is_sure"),
    [
        ("/usr/bin/llama-server", (), True),
        ("docker", ("run", "llama.cpp:server"), False),
        ("docker", ("run", "llama.cpp:server", "--cache-ram", "4096"), True),
        ("start.sh", ("-cram=99",), True),
    ],
)
def test_prompts_are_kept_in_slots_only(binary: str, args: tuple[str, ...], is_sure: bool) -> None:
    kind, given = LlamaCppKind(), variant(4096, binary=binary, args=args, workdir=Path())
    assert kind.keeps_prompts_in_slots(given) is is_sure
    changed = kind.with_prompts_in_slots(given)
    if any("ram" in arg for arg in args):
        assert changed.args == (*args, "--cache-ram", "0")
    else:
        assert changed.args == args
        assert changed.env["LLAMA_ARG_CACHE_RAM"] == "0"
