"""Whole numbers that are written `4.0` or `1e2`: counted like others, and passed on as they came.

Which fields: tests/server/api/test_request_fields.py.
"""

from __future__ import annotations

import json

import msgspec
import pytest
import trio.testing

from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.config.schema import RewriteConfig
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.large_body import LargeBody
from trio_gateway.server.api.request_body import with_answer_limit
from trio_gateway.server.reading.messages import Body, Opened, Read, Terms
from trio_gateway.server.reading.program import Reader

Clock = trio.testing.MockClock

SEED = b"18446744073709551615"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"n":1.0,"seed":%b%%b}' % SEED
LIMITS = {
    "/v1/chat/completions": CHAT % b',"max_completion_tokens":1e2',
    "/v1/completions": b'{"model":"m","prompt":"Hi","max_tokens":100.0,"logprobs":2.0}',
    "/v1/responses": b'{"model":"m","input":"Hi","max_output_tokens":1E2}',
    "/v1/messages": b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":1.0e2}',
    "/completion": b'{"model":"m","prompt":"Hi","n_predict":1000e-1}',
}


@pytest.mark.parametrize("path", LIMITS)
async def test_they_are_counted_and_reach_the_engine_as_they_came(
    autojump_clock: Clock, path: str
) -> None:
    async with running_stack(config(model("m", variant(2048), variant(8192)))) as stack:
        stack.engines.load_s = 0.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        asked = await stack.post(
            f"/gateway/explain?endpoint={path.removeprefix('/')}", LIMITS[path]
        )
        assert json.loads(asked.content)["answer"] == 100
        assert (await stack.post(path, LIMITS[path])).status == 200
        ((_, _, body),) = stack.engines.requests
        assert body == LIMITS[path]


@pytest.mark.parametrize("path", LIMITS)
def test_a_large_body_is_read_in_the_same_way(path: str) -> None:
    reader, name = Reader(), path.removeprefix("/").removeprefix("v1/")
    opened, _ = reader.answer(Body(name), LIMITS[path])
    assert isinstance(opened, Opened)
    read, _ = reader.answer(terms(), b"")
    assert isinstance(read, Read)
    assert read.measures is not None
    assert read.measures.answer == 100


def test_a_large_ollama_request_means_the_whole_context_as_a_small_one_does() -> None:
    reader = Reader()
    reader.answer(
        Body("api/chat"),
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],'
        b'"options":{"repeat_last_n":-1,"num_ctx":1e30,"num_predict":1e2,"seed":%b}}' % SEED,
    )
    read, payload = reader.answer(terms(context=4096), b"")
    assert isinstance(read, Read)
    made = json.loads(payload[-1])
    assert (made["repeat_last_n"], made["max_tokens"], made["seed"]) == (4096, 100, int(SEED))


def terms(context: int = 0) -> Terms:
    return Terms(
        rewrite=None, constant_billing_line=False, image_tokens=1024, name="m", context=context
    )


@pytest.mark.parametrize("written", [b"1e5", b"100000.0", b"100000", b"1.%b" % (b"0" * 99 + b"e5")])
def test_a_maximum_is_lowered_however_it_is_written(written: bytes) -> None:
    data = CHAT % (b',"max_tokens":%b' % written)
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    lowered = with_answer_limit(members, 50)
    assert bytes(lowered["max_tokens"]) == b"50"
    assert bytes(lowered["seed"]) == SEED
    begin = data.index(written)
    large = LargeBody([data], {"max_tokens": (begin, begin + len(written))})
    assert large.with_answer_limit(50).short_member("max_tokens") == b"50"
    assert large.with_answer_limit(100_000).short_member("max_tokens") == written


async def test_what_a_model_s_rewrite_sets_is_counted_too(autojump_clock: Clock) -> None:
    rewrite = RewriteConfig(set={"max_tokens": b"1e2"})
    async with running_stack(config(model("m", rewrite=rewrite))) as stack:
        asked = await stack.post("/gateway/explain", CHAT % b"")
        assert json.loads(asked.content)["answer"] == 100
