"""The line that Claude Code puts before its system text is the same in every request that an engine
gets, so that the rest of the prompt is found in its cache."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.support.asking import CHAT, Clock
from tests.support.fakes import FakeKind
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.config.schema import RewriteConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def _all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)


@pytest.fixture(params=[False, True], ids=["small", "large"], autouse=True)
def _both_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch, everything=request.param)


def line(checksum: str) -> str:
    version = f"2.1.177.{checksum[:3]}"
    return f"x-anthropic-billing-header: cc_version={version}; cc_entrypoint=cli; cch={checksum};"


async def sent_for(path: str, body: str, **fields: Any) -> bytes:
    """What the engine gets."""
    async with running_stack(config(model("m", variant(8192), **fields))) as stack:
        answer = await stack.post(path, body.encode())
        assert answer.status == 200, answer.content
        sent = stack.engines.requests[-1][2]
        assert isinstance(sent, bytes)
        return sent


QUOTED = [{"role": "user", "content": line("36ee5")}]  # by a user, who asks what it is


def block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


SYSTEMS = {
    "a block of its own": lambda text: [block(text), block("You are Claude Code.")],
    "its end and more in one block": lambda text: [block(f"{text}\nYou are Claude Code.")],
    "a text": lambda text: f"{text}\nYou are Claude Code.",
    "nothing else": lambda text: text,
    "twice": lambda text: [block(text), block(text)],
}
BLOCKS = [*SYSTEMS.values()]
ONE = [SYSTEMS[name] for name in SYSTEMS if name != "twice"]
TEXT = [SYSTEMS["a text"], SYSTEMS["nothing else"]]


@pytest.mark.parametrize(
    ("path", "systems", "make"),
    [
        (MESSAGES, BLOCKS, lambda system: {"system": system, "messages": HI, "max_tokens": 9}),
        (f"{MESSAGES}/count_tokens", BLOCKS, lambda system: {"system": system, "messages": HI}),
        (CHAT, ONE, lambda system: {"messages": [{"role": "system", "content": system}, *HI]}),
        (CHAT, ONE, lambda system: {"messages": [{"role": "developer", "content": system}, *HI]}),
        (CHAT, ONE, lambda system: {"messages": [{"content": system, "role": "system"}, *HI]}),
        (RESPONSES, ONE, lambda system: {"input": [{"role": "system", "content": system}, *HI]}),
        (RESPONSES, TEXT, lambda system: {"instructions": system, "input": "Hi"}),
    ],
)
async def test_two_requests_are_one_to_the_engine(
    autojump_clock: Clock, path: str, systems: list[Any], make: Any
) -> None:
    async with running_stack(config(model("m", variant(8192)))) as stack:
        for system in systems:
            for checksum in ("36ee5", "0aaa9"):
                body = json.dumps({"model": "m", **make(system(line(checksum)))})
                assert (await stack.post(path, body.encode())).status == 200
            first, second = (sent for _, _, sent in stack.engines.requests[-2:])
            assert first == second
            constant = make(system("x-anthropic-billing-header: constant"))
            assert json.loads(first) == {"model": "m", **constant}


async def test_every_other_byte_stays_as_it_came(autojump_clock: Clock) -> None:
    body = '{ "model":"m", "system" : [{"text": "%s", "type":"text"}],"x": 1e2,\n"messages":%s}'
    sent = await sent_for(MESSAGES, body % (line("36ee5"), json.dumps(HI)))
    assert json.loads(sent)["x"] == 100
    assert b'{"text": "x-anthropic-billing-header: constant", "type":"text"}' in sent
    assert b"1e2" in sent


@pytest.mark.parametrize("end", ["\\n", "\\r\\n", "\\u000a", "\\u000A", "\\u000D", '","x":"'])
async def test_it_ends_where_its_line_does(autojump_clock: Clock, end: str) -> None:
    body = '{"model":"m","system":"%s \\u00e9 \\"%sBe kind.","messages":%s}'
    sent = await sent_for(MESSAGES, body % (line("36ee5"), end, json.dumps(HI)))
    constant = (
        '{"model":"m","system":"x-anthropic-billing-header: constant%sBe kind.","messages":%s}'
    )
    assert sent == (constant % (end, json.dumps(HI))).encode()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (MESSAGES, {"system": "Be kind.", "messages": QUOTED}),
        (MESSAGES, {"system": f"Keep this: {line('36ee5')}", "messages": HI}),
        (CHAT, {"messages": QUOTED}),
        (CHAT, {"messages": [{"role": "system", "content": "a"}, *QUOTED]}),
        (RESPONSES, {"input": line("36ee5")}),
        ("/v1/completions", {"prompt": line("36ee5")}),
    ],
)  # fmt: skip
async def test_what_is_no_system_text_is_left_alone(
    autojump_clock: Clock, path: str, fields: dict[str, Any]
) -> None:
    body = json.dumps({"model": "m", **fields})
    assert await sent_for(path, body) == body.encode()


@pytest.mark.parametrize(("switch", "changed"), [(None, True), (True, True), (False, False)])
async def test_rewrite_switches_it(
    autojump_clock: Clock, switch: bool | None, changed: bool
) -> None:
    rewrite = RewriteConfig(set={"seed": b"7"}, constant_billing_line=switch)
    body = json.dumps({"model": "m", "system": line("36ee5"), "messages": HI})
    sent = await sent_for(MESSAGES, body, rewrite=rewrite)
    assert (b"cch=36ee5" not in sent) == changed
    assert json.loads(sent)["seed"] == 7


def test_a_remote_gets_it_as_it_came() -> None:
    """It may be Anthropic, which made the line."""
    subject = model("m", variant(8192))
    assert subject.constant_billing_line
    engine = msgspec.structs.replace(subject.engine, has_process=False)
    remote = msgspec.structs.replace(subject, engine=engine)
    assert not remote.constant_billing_line
    asked = msgspec.structs.replace(remote, rewrite=RewriteConfig(constant_billing_line=True))
    assert asked.constant_billing_line
