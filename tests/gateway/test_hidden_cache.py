"""`hide_cached_tokens`: on no way does an answer say what an engine had read before."""

from __future__ import annotations

import json

import pytest

from tests.support.asking import CHAT, DONE, Clock, chat
from tests.support.fake_slots import slot_stack
from tests.support.schema_values import config, model, variant

PROMPT, CACHED, READ = 9000, 7341, 1659  # tokens
DETAILS = {"cached_tokens": CACHED}
ANSWER = {
    "model": "own",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": PROMPT, "completion_tokens": 2, "prompt_tokens_details": DETAILS},
    "timings": {"cache_n": CACHED, "prompt_n": READ, "prompt_ms": 77.66, "predicted_n": 2},
}
SAID = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
async def test_a_client_does_not_see_it(autojump_clock: Clock, path: str, streams: bool) -> None:
    given = config(model("m", variant(8192)), hide_cached_tokens=True)
    encoded = json.dumps(ANSWER).encode()
    async with slot_stack(given) as stack:
        event = b"data: " + encoded + b"\n\n"
        stack.engines.scripts = [[event[:90], event[90:] + DONE] if streams else [encoded]]
        response = await stack.post(path, chat("m", messages=SAID, stream=streams))
        assert response.status == 200, response.content
        said = response.content.decode()
        assert str(PROMPT) in said
        assert not [number for number in (CACHED, READ, "77.66", "7766") if str(number) in said]
