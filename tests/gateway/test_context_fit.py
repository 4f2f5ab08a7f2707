"""A request and the context that it gets: moving up, lowering answers, saying why."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpcore
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, header, stream
from tests.support.llama import answered, exceeded
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import GatewayConfig, VariantConfig
from trio_gateway.engine.clients.facts import EngineFacts


def two_contexts(**fields: Any) -> Any:
    return config(model("m", variant(1024), variant(4096), **fields))


async def ask(stack: Stack, text: str | None = None, **fields: Any) -> httpcore.Response:
    if text is not None:
        fields["messages"] = [{"role": "user", "content": text}]
    return await stack.post(CHAT, chat("m", **fields))


def refuses_once(stack: Stack, tokens: int, context: int = 1024) -> None:
    """The first answer is the error, with its status; the next ones are not."""
    stack.engines.statuses = [400]
    stack.engines.scripts = [[exceeded(tokens, context)], [answered(tokens)]]


async def test_a_prompt_that_its_engine_refuses_moves_up_unseen(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        refuses_once(stack, 1500)
        response = await ask(stack)
        assert response.status == 200
        assert header(response, "X-Gateway-Variant") == "4096"
        assert header(response, "X-Gateway-Need") == str(1500 + 8 + 16)
        assert header(response, "X-Gateway-Counted") == "engine"
        assert len(stack.engines.processes) == 2


async def test_a_streamed_request_moves_up_before_its_first_byte(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.statuses = [400]
        stack.engines.scripts = [[exceeded(1500, 1024)], [EVENT, DONE]]
        assert await stream(stack, chat("m", stream=True)) == EVENT + DONE


async def test_a_request_moves_up_once_only(autojump_clock: Clock) -> None:
    given = config(model("m", variant(1024), variant(2048), variant(4096)))
    async with running_stack(given) as stack:
        stack.engines.statuses = [400, 400]
        stack.engines.scripts = [[exceeded(1500, 1024)], [exceeded(3000, 2048)]]
        response = await ask(stack)
        assert (response.status, error_of(response)["code"]) == (400, "context_length_exceeded")
        assert "3000" in error_of(response)["message"]


async def test_what_no_variant_holds_is_refused_with_what_to_cut(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        refuses_once(stack, 5000)
        response = await ask(stack)
        error = error_of(response)
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
        assert error["param"] == "messages"
        assert "needs 5024 tokens" in error["message"]
        assert "this model's maximum context length is 4096 tokens (m)" in error["message"]
        assert "cut 928 tokens" in error["message"]


def vllm_refuses(asked: int, context: int = 4096) -> bytes:
    """It reads no more of a prompt than shows that there is no room."""
    least = context - asked + 1
    said = (
        f"This model's maximum context length is {context} tokens. However, you requested {asked} "
        f"output tokens and your prompt contains at least {least} input tokens, for a total of at "
        f"least {context + 1} tokens."
    )
    return json.dumps({"error": {"message": said, "code": 400}}).encode()


async def test_an_engine_that_says_the_least_only_gets_an_answer_that_fits(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.statuses = [400]
        stack.engines.scripts = [[vllm_refuses(4000)], [answered(500)]]
        response = await ask(stack, "word " * 400, max_tokens=5000)
        assert response.status == 200
        lowered = int(header(response, "X-Gateway-Answer-Limit").split(";")[0])
        assert lowered < 4096 - 2000  # beside the bytes of the prompt, which are its bound
        assert json.loads(stack.engines.requests[-1][2])["max_tokens"] == lowered


async def test_what_is_told_of_such_an_engine_is_enough_to_follow(autojump_clock: Clock) -> None:
    """Also by a request whose maximum is an order."""
    async with running_stack(config(model("m"))) as stack:
        stack.engines.statuses = [400]
        stack.engines.scripts = [[vllm_refuses(4000)]]
        body = {"model": "m", "prompt": "word " * 400, "max_tokens": 3500}
        response = await stack.post("/v1/completions", json.dumps(body).encode())
        said = error_of(response)["message"]
        assert "up to" in said
        lowered = int(said.partition("lower max_tokens to ")[2].partition(",")[0])
        assert 500 < lowered < 4096 - 2000


async def test_another_error_of_the_engine_is_passed_on_as_it_is(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.statuses = [400]
        body = b'{"error": {"message": "bad grammar", "type": "invalid_request_error"}}'
        stack.engines.scripts = [[body]]
        response = await ask(stack)
        assert (response.status, response.content) == (400, body)


async def test_a_model_may_refuse_an_answer_that_fits_nowhere(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts(clamp_answer=False)) as stack:
        response = await ask(stack, max_tokens=5000)
        assert (response.status, error_of(response)["code"]) == (400, "context_length_exceeded")
        assert "lower max_tokens to" in error_of(response)["message"]
        assert stack.engines.requests == []


async def test_where_an_answers_maximum_is_a_ceiling_it_is_lowered(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.counted = 40
        response = await ask(stack, max_tokens=5000, temperature=0.5)
        assert response.status == 200
        ((_, _, body),) = stack.engines.requests
        sent = json.loads(body)
        assert sent["temperature"] == 0.5
        assert 512 <= sent["max_tokens"] <= 4096 - 16


async def test_where_it_is_an_order_it_is_refused(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        body = json.dumps({"model": "m", "prompt": "hi", "n_predict": 99999}).encode()
        response = await stack.post("/v1/completions", body)
        assert (response.status, error_of(response)["code"]) == (400, "context_length_exceeded")
        assert error_of(response)["message"].count("n_predict") == 2
        assert "cut" not in error_of(response)["message"]
        assert stack.engines.requests == []


async def test_only_maxima_that_are_too_large_are_lowered(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts(clamp_answer=True)) as stack:
        await ask(stack, max_tokens=100, max_completion_tokens=9000, user="\u00e9")
        sent = json.loads(stack.engines.requests[0][2])
        assert (sent["max_tokens"], sent["user"]) == (100, "\u00e9")
        assert 512 <= sent["max_completion_tokens"] <= 4096 - 16


async def test_on_the_way_up_the_answer_is_lowered_as_well(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts(clamp_answer=True)) as stack:
        refuses_once(stack, 3500)
        response = await ask(stack, max_tokens=700)
        assert response.status == 200
        assert json.loads(stack.engines.requests[1][2])["max_tokens"] == 4096 - 3500 - 16


async def test_an_untouched_request_reaches_the_engine_byte_for_byte(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts(clamp_answer=True)) as stack:
        body = b'{"model":  "m","messages":[{"role":"user","content":"\\u0048i"}]  ,"max_tokens":8}'
        assert (await stack.post(CHAT, body)).status == 200
        assert stack.engines.requests[0][2] == body


async def test_what_nests_too_deeply_is_refused(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        nested: Any = "x"
        for _ in range(900):
            nested = [nested]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "x": nested}]}).encode()
        for path in (CHAT, "/gateway/explain"):
            response = await stack.post(path, body)
            assert response.status in (200, 400)
            if response.status == 400:
                assert error_of(response)["code"] == "invalid_json"


# -- what answers teach ---------------------------------------------------------------------


async def test_answers_teach_how_far_off_the_counts_are(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        stack.engines.scripts = [[answered(30)]]
        await ask(stack)
        event = b'data: {"timings":{"prompt_n":10,"cache_n":21,"predicted_n":4}}\n\n'
        stack.engines.scripts = [[EVENT, event, DONE]]
        await stream(stack, chat("m", stream=True))
        facts = json.loads((await stack.get("/gateway/models/m")).content)
        errors = facts["count_errors"]["bound"]
        assert errors["answers"] == 2
        assert errors["most"] - errors["least"] == 1
        assert (await stack.get("/gateway/models/none")).status == 404


# -- saying why -----------------------------------------------------------------------------


async def explained(stack: Stack, body: bytes) -> Any:
    response = await stack.post("/gateway/explain", body)
    assert response.status == 200, response.content
    return json.loads(response.content)


async def test_a_dry_run_says_what_would_happen_and_does_nothing(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        found = await explained(stack, chat("m", max_tokens=900))
        assert found["variant"] == "4096"
        assert found["bounds"]["lower"] <= found["bounds"]["upper"] == found["prompt"]
        assert found["prompt_source"] == "bound"
        assert found["need"] == found["prompt"] + 900 + 16
        assert found["variants"] == [
            {"variant": "1024", "context": 1024, "holds": False},
            {"variant": "4096", "context": 4096, "holds": True},
        ]
        assert (found["decision"], found["engine_state"]) == ("started", None)
        assert found["expected_load_s"] is None
        assert stack.engines.processes == []
        assert stack.engines.requests == []


async def test_a_dry_run_knows_the_running_engine_and_counts_with_it(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        await ask(stack, max_tokens=900)
        stack.engines.counted = 77
        found = await explained(stack, chat("m"))
        assert (found["counted"], found["counted_by"], found["is_exact"]) == (77, "engine", True)
        assert (found["variant"], found["engine_state"]) == ("4096", "ready")
        assert (found["decision"], found["expected_wait_s"]) == ("reused", 0.0)
        assert "its running engine holds the need" in found["reason"]


async def test_a_dry_run_of_what_is_too_long_shows_the_error(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts(clamp_answer=False)) as stack:
        found = await explained(stack, chat("m", max_completion_tokens=9000))
        assert "lower max_completion_tokens to" in found["refused"]
        assert "maximum context length is 4096 tokens (m)" in found["refused"]
        assert found["variant"] is None


async def test_a_dry_run_lowers_what_a_request_would_have_lowered(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        found = await explained(stack, chat("m", max_tokens=9000))
        assert (found["refused"], found["clamped_from"]) == (None, 9000)
        found = await explained(stack, b'{"model":"m","prompt":"text","max_tokens":9000}')
        assert "lower max_tokens to" in found["refused"]


async def test_a_dry_run_takes_any_endpoints_request(autojump_clock: Clock) -> None:
    async with running_stack(two_contexts()) as stack:
        found = await explained(stack, b'{"model":"m","prompt":"text"}')
        assert found["endpoint"] == "completions"
        for body, code in (
            (b'{"model":"m"}', "missing_content"),
            (b"no json", "invalid_json"),
            (b'{"model":"x","prompt":"t"}', "model_not_found"),
            (b'{"model":"m","input":"t"}', "endpoint_not_supported"),
            (b'{"model":"m","messages":[]}', "missing_messages"),
        ):
            response = await stack.post("/gateway/explain", body)
            assert response.status in (400, 404)
            assert error_of(response)["code"] == code


# -- the truth about contexts ---------------------------------------------------------------


async def test_requests_that_share_one_cache_never_need_more_than_it_holds(
    autojump_clock: Clock,
) -> None:
    given = config(model("m", variant(4096)))
    async with running_stack(given) as stack:
        stack.engines.facts = EngineFacts(slots=4, context=4096)
        stack.engines.shared_tokens = 4096
        stack.engines.scripts = [[answered(1)], [10.0, answered(1)], [answered(1)]]
        await ask(stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, stack, max_tokens=3000))
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            await ask(stack, max_tokens=3000)
            assert trio.current_time() - before >= 9


# -- an input that is computed at once -----------------------------------------------------------

BEYOND_BATCH = (
    b'{"error":{"code":500,"message":"input (601 tokens) is too large to process. increase the '
    b'physical batch size (current batch size: 512)","type":"server_error"}}'
)


def embedder(*variants: VariantConfig) -> GatewayConfig:
    return config(model("m", *variants, endpoints=frozenset({"embeddings"})))


async def embed(stack: Stack, tokens: int) -> httpcore.Response:
    body = json.dumps({"model": "m", "input": [1] * tokens}).encode()
    return await stack.post("/v1/embeddings", body)


async def test_an_input_longer_than_a_batch_is_refused_before_an_engine_is_asked(
    autojump_clock: Clock,
) -> None:
    args = ("-c", "4096", "--embeddings", "--pooling", "mean")
    given = embedder(variant(4096, args=args, largest_input=512))
    async with running_stack(given) as stack:
        response = await embed(stack, 513)
        error = error_of(response)
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
        assert "513 for the largest input)" in error["message"]
        assert "maximum context length is 512 tokens" in error["message"]
        assert "raise --ubatch-size and --batch-size to 4096" in error["message"]
        assert stack.engines.processes == []
        assert (await embed(stack, 512)).status == 200


async def test_an_engine_that_finds_an_input_longer_than_its_batch_is_no_server_error(
    autojump_clock: Clock,
) -> None:
    """Where the arguments do not tell: in a container, or of a server elsewhere."""
    async with running_stack(embedder(variant(4096))) as stack:
        stack.engines.statuses = [500, 500]
        stack.engines.scripts = [[BEYOND_BATCH], [BEYOND_BATCH]]
        response = await embed(stack, 601)
        error = error_of(response)
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 512 tokens" in error["message"]
        assert "raise --ubatch-size and --batch-size" in error["message"]


async def test_and_a_variant_with_a_larger_batch_serves_it(autojump_clock: Clock) -> None:
    given = embedder(variant(1024), variant(4096))
    async with running_stack(given) as stack:
        stack.engines.statuses = [500]
        stack.engines.scripts = [[BEYOND_BATCH], [answered(601)]]
        response = await embed(stack, 601)
        assert (response.status, header(response, "X-Gateway-Variant")) == (200, "4096")
