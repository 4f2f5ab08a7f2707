"""The whole gateway over memory streams, with fake engines and a virtual clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import (
    CHAT,
    DONE,
    EVENT,
    Clock,
    chat,
    error_of,
    header,
    stream,
)
from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.engine.clients.facts import EngineFacts

# -- answers ---------------------------------------------------------------------------------


async def test_a_request_starts_its_engine_and_gets_the_engine_s_answer(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[b'{"an":"swer"}']]
        response = await stack.post(CHAT, chat())
        assert (response.status, response.content) == (200, b'{"an":"swer"}')
        assert header(response, "X-Gateway-Model") == "m"
        assert header(response, "X-Gateway-Variant") == "4096"
        assert 1000 <= int(header(response, "X-Gateway-Load-Ms")) <= 1100
        assert int(header(response, "X-Gateway-Queue-Ms")) == 0
        assert len(header(response, "X-Gateway-Request-Id")) == 16


async def test_the_engine_gets_the_client_s_own_bytes_and_only_headers_it_needs(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        body = chat().replace(b": ", b" :   ")
        await stack.http.request(
            "POST",
            f"http://gateway{CHAT}",
            content=body,
            headers=[
                (b"Host", b"gateway"),
                (b"Content-Length", str(len(body)).encode()),
                (b"Authorization", b"Bearer secret"),
                (b"Cookie", b"session=secret"),
                (b"Content-Type", b"application/json"),
            ],
        )
        assert stack.engines.requests == [(CHAT, {b"content-type": b"application/json"}, body)]


async def test_an_hour_long_stream_arrives_as_it_comes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        hour: list[bytes | float] = [EVENT, 30.0] * 120
        stack.engines.scripts = [[*hour, DONE]]
        begun = trio.current_time()
        body = chat(stream=True)
        async with stack.http.stream("POST", f"http://gateway{CHAT}", content=body) as response:
            arrivals = [trio.current_time() - begun async for _ in response.aiter_stream()]
        assert len(arrivals) == 121
        assert arrivals[-1] - arrivals[0] == pytest.approx(3600)


async def test_the_engine_s_own_error_passes_through(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.status, stack.engines.scripts = 418, [[b'{"error":"teapot"}']]
        response = await stack.post(CHAT, chat())
        assert (response.status, response.content) == (418, b'{"error":"teapot"}')


async def test_a_name_in_other_letters_is_percent_encoded_in_the_headers(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("модель (1)"))) as stack:
        response = await stack.post(CHAT, chat("модель (1)"))
        encoded = "%D0%BC%D0%BE%D0%B4%D0%B5%D0%BB%D1%8C (1)"
        assert header(response, "X-Gateway-Model") == encoded


async def test_a_long_load_says_so(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 35
        await stack.post(CHAT, chat())
        loading = [r.getMessage() for r in caplog.records if "loading for" in r.getMessage()]
        assert loading == [f"m:4096: loading for {s} of at most 120 s" for s in (10, 20, 30)]


async def test_models_say_their_contexts_and_whether_they_are_loaded(autojump_clock: Clock) -> None:
    two = model("org/m", variant(2048), variant(8192), aliases=("small",))
    hidden = model("secret", hidden=True)
    async with running_stack(config(two, hidden)) as stack:
        await stack.post(CHAT, chat("small"))
        listed = json.loads((await stack.get("/v1/models")).content)
        assert [m["id"] for m in listed["data"]] == ["org/m"]
        one = json.loads((await stack.get("/v1/models/org/m")).content)
        assert one == listed["data"][0]
        assert (one["context_length"], one["contexts"]) == (8192, [2048, 8192])
        assert (one["loaded"], one["loaded_variant"]) == (True, "2048")


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"\xff"', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"messages":[]}', "missing_model"),
        (b'{"model":7}', "missing_model"),
        (b'{"model":"m"}', "missing_messages"),
        (b'{"model":"m","messages":[]}', "missing_messages"),
        (b'{"model":"m","messages":["hi"]}', "missing_messages"),
        (b'{"model":"m","messages":{"role":"user"}}', "missing_messages"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_mistake(
    autojump_clock: Clock, body: bytes, code: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        response = await stack.post(CHAT, body)
        assert (response.status, error_of(response)["code"]) == (400, code)
        assert not stack.engines.processes


async def test_an_unknown_model_is_a_404_with_near_names(autojump_clock: Clock) -> None:
    async with running_stack(config(model("qwen3-8b"), model("gemma"))) as stack:
        response = await stack.post(CHAT, chat("qwen3"))
        assert (response.status, error_of(response)["code"]) == (404, "model_not_found")
        assert "qwen3-8b" in error_of(response)["message"]
        assert (await stack.get("/v1/models/nope")).status == 404


async def test_a_body_over_the_limit_is_a_413(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), max_body_bytes=1000)) as stack:
        response = await stack.post(CHAT, chat(padding="x" * 1000))
        assert (response.status, error_of(response)["code"]) == (413, "body_too_large")
        assert "1000 bytes" in error_of(response)["message"]


async def test_a_need_over_the_largest_context_is_a_400_with_both_numbers(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(512), variant(1024)))) as stack:
        await stack.post(CHAT, chat())
        stack.engines.counted = 1500
        response = await stack.post(CHAT, chat(padding="", user="u" * 9, max_tokens=900))
        error = error_of(response)
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
        assert "2416" in error["message"]
        assert "1024" in error["message"]


async def test_unknown_paths_and_wrong_methods_have_the_same_shape(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        unknown = await stack.get("/v2/chat")
        assert (unknown.status, error_of(unknown)["code"]) == (404, "unknown_path")
        wrong = await stack.get(CHAT)
        assert (wrong.status, error_of(wrong)["code"]) == (405, "method_not_allowed")
        assert "POST" in header(wrong, "Allow")


async def test_an_endpoint_that_the_engine_does_not_serve_is_a_400(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        response = await stack.post("/v1/embeddings", b'{"model":"m","input":"text"}')
        assert (response.status, error_of(response)["code"]) == (400, "endpoint_not_supported")
        assert not stack.engines.processes


async def test_an_engine_that_does_not_start_is_a_502_with_its_last_lines_then_backs_off(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 100
        async with trio.open_nursery() as nursery:

            async def crash() -> None:
                await stack.engines.launched.wait()
                stack.engines.processes[0].exit("exited with code 1")

            nursery.start_soon(crash)
            response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert error_of(response)["engine_output"] == ["the fake engine's last line"]
        assert "the fake engine" not in error_of(response)["message"]
        stack.engines.load_s = 1
        failed_at = trio.current_time()
        assert (await stack.post(CHAT, chat())).status == 200
        assert trio.current_time() == pytest.approx(failed_at + 1 + 1, abs=0.1)  # pause and load


async def test_an_engine_that_keeps_failing_is_a_503_once_its_pause_is_long(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 100

        async def crash(after_s: float) -> None:
            await trio.sleep(after_s)
            stack.engines.alive[0].exit("exited with code 1")

        for pause_s in (0, 1, 2, 4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash, pause_s + 0.5)
                response = await stack.post(CHAT, chat())
            assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        again = await stack.post(CHAT, chat())
        assert (again.status, error_of(again)["code"]) == (503, "engine_back_off")
        assert header(again, "Retry-After") == "8"
        assert error_of(again)["engine_output"] == ["the fake engine's last line"]


async def test_a_bug_that_one_engine_meets_does_not_end_the_others(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    helper = model("helper", pool="secondary")
    async with running_stack(config(model("m"), helper)) as stack:
        assert (await stack.post(CHAT, chat("helper"))).status == 200

        def broken(_: object) -> None:
            raise RuntimeError("no descriptors, say")

        with monkeypatch.context() as patch:
            patch.setattr(stack.engines.client_type, "read_facts", broken)
            response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert "please report it" in caplog.text
        assert (await stack.post(CHAT, chat("helper"))).status == 200
        await trio.sleep(2)
        assert (await stack.post(CHAT, chat())).status == 200


@pytest.mark.parametrize("where", ["http://no.such.host.invalid:8099", "http://a..b:8099"])
async def test_an_address_that_means_nothing_is_a_502_that_says_so(where: str) -> None:
    async with running_stack(config(model("m", variant(connect=where)), model("n"))) as stack:
        stack.engines.load_s = 0
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert "connect" in error_of(response)["message"]
        assert (await stack.post(CHAT, chat("n"))).status == 200


async def test_an_engine_that_never_gets_ready_is_a_504(autojump_clock: Clock) -> None:
    slow = variant(timeouts=EngineTimeouts(startup_s=20))
    async with running_stack(config(model("m", slow))) as stack:
        stack.engines.load_s = 1000
        begun = trio.current_time()
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (504, "engine_startup_timeout")
        assert "its health endpoint: fake" in error_of(response)["message"]
        assert trio.current_time() - begun == pytest.approx(20.5, abs=0.2)
        assert not stack.engines.alive


async def test_an_answer_from_a_stranger_on_the_port_is_not_used(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.owns_port = False
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert "is held by" in error_of(response)["message"]
        assert not stack.engines.requests


async def test_a_full_queue_is_a_429_and_a_long_wait_a_504(autojump_clock: Clock) -> None:
    one = model("m", variant(parallel=1))
    async with running_stack(config(one, queue_limit=1, queue_timeout_s=60)) as stack:
        stack.engines.scripts = [[1000.0, b"{}"]]
        statuses = dict[str, tuple[int, str]]()

        async def ask(label: str) -> None:
            response = await stack.post(CHAT, chat())
            code = "" if response.status == 200 else error_of(response)["code"]
            statuses[label] = (response.status, code)

        async with trio.open_nursery() as nursery:
            for label in ("served", "too late", "too many"):
                nursery.start_soon(ask, label)
                await trio.sleep(5)
        assert statuses == {
            "served": (200, ""),
            "too late": (504, "queue_timeout"),
            "too many": (429, "queue_full"),
        }


# -- streams that break off ------------------------------------------------------------------


async def test_a_stream_whose_engine_dies_ends_with_an_error_event_and_no_done(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT, 5.0, EVENT, 1000.0]]

        async def crash() -> None:
            await trio.sleep(30)
            stack.engines.alive[0].exit("was killed by signal 9")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            answer = await stream(stack, chat(stream=True))
        *events, last, _ = answer.split(b"\n\n")
        assert events == [EVENT.strip(), EVENT.strip()]
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert error["code"] == "engine_failed"
        assert "was killed by signal 9" in error["message"]


async def test_an_event_cut_in_the_middle_is_ended_before_the_error_event(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        named = EVENT.replace(b"{", b'{"model":"m",', 1)
        stack.engines.scripts = [[named, EVENT[:10], 1000.0]]

        async def crash() -> None:
            await trio.sleep(5)
            stack.engines.alive[0].exit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            answer = await stream(stack, chat(stream=True))
        assert answer.startswith(named + EVENT[:10] + b'\n\ndata: {"error"')


async def test_a_request_that_lost_its_engine_before_the_first_byte_is_tried_once_more(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[1000.0], [EVENT, DONE]]

        async def crash() -> None:
            await trio.sleep(5)
            stack.engines.alive[0].exit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            answer = await stream(stack, chat(stream=True))
        assert answer == EVENT + DONE
        assert len(stack.engines.processes) == 2


async def test_it_is_tried_no_more_than_that(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[1000.0], [1000.0], [b"{}"]]

        async def crash() -> None:
            for _ in range(2):
                await trio.sleep(30)
                stack.engines.alive[0].exit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        lost_at = trio.current_time()
        assert (await stack.post(CHAT, chat())).status == 200
        assert trio.current_time() > lost_at + 1  # the pause


async def test_a_request_whose_engine_died_twice_within_a_minute_waits_for_the_third(
    autojump_clock: Clock,
) -> None:
    """The first one died before: without the wait, the request would find its second in a pause."""
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[b"{}"], [1000.0], [b"{}"], [b"{}"]]
        assert (await stack.post(CHAT, chat())).status == 200
        stack.engines.alive[0].exit()
        statuses = []

        async def ask() -> None:
            statuses.append((await stack.post(CHAT, chat())).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(5)
            stack.engines.alive[0].exit()
            nursery.start_soon(ask)
        assert statuses == [200, 200]
        assert len(stack.engines.processes) == 3


# -- clients that leave ----------------------------------------------------------------------


async def test_a_client_that_leaves_in_mid_stream_closes_the_engine_s_connection_at_once(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT, 1000.0]]
        with trio.move_on_at(95):
            await stream(stack, chat(stream=True))
        await trio.testing.wait_all_tasks_blocked()
        assert stack.engines.exchanges[0].closed_at == 95
        # Its slot is free again.
        assert [row.leases for row in stack.manager.overview.engines()] == [0]


async def test_a_client_that_leaves_while_it_waits_takes_its_ticket_along(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        with trio.move_on_after(0.5):
            await stack.post(CHAT, chat())
        await trio.testing.wait_all_tasks_blocked()
        assert not stack.manager.overview.tickets()
        await trio.sleep(10)
        assert not stack.engines.requests


async def test_a_slow_reader_costs_no_memory(autojump_clock: Clock) -> None:
    """The gateway reads from the engine only as fast as the client reads."""
    async with running_stack(config(model("m"))) as stack:
        taken = 0

        def endless() -> Any:
            nonlocal taken
            while True:
                taken += 1
                yield EVENT

        stack.engines.scripts = [endless()]
        body = chat(stream=True)
        client = stack.network.connect(buffered=False)
        await client.send_all(
            b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n"
            % (CHAT.encode(), len(body))
            + body
        )
        await trio.sleep(60)
        assert taken < 100
        await client.aclose()


# -- swaps and idle engines ------------------------------------------------------------------


async def test_a_swap_waits_for_the_leases_and_drops_none(autojump_clock: Clock) -> None:
    async with running_stack(config(model("a"), model("b"))) as stack:
        stack.engines.scripts = [[EVENT, 50.0, DONE]]
        answers = dict[str, Any]()

        async def ask_a() -> None:
            answers["a"] = await stream(stack, chat("a", stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_a)
            await trio.sleep(10)
            response = await stack.post(CHAT, chat("b"))
        assert answers["a"] == EVENT + DONE
        assert int(header(response, "X-Gateway-Load-Ms")) == pytest.approx(1000, abs=60)
        assert int(header(response, "X-Gateway-Queue-Ms")) == pytest.approx(41_500, abs=200)
        first, second = stack.engines.processes
        assert first.exited.is_set()
        assert second.started_at == pytest.approx(51.5, abs=0.1)


async def test_a_secondary_model_runs_beside_a_primary_one(autojump_clock: Clock) -> None:
    helper = model("helper", pool="secondary")
    async with running_stack(config(model("m"), helper)) as stack:
        await stack.post(CHAT, chat("m"))
        await stack.post(CHAT, chat("helper"))
        assert len(stack.engines.alive) == 2


async def test_an_idle_engine_stops_after_its_timeout_and_not_before(autojump_clock: Clock) -> None:
    quick = variant(timeouts=EngineTimeouts(idle_s=60))
    async with running_stack(config(model("m", quick))) as stack:
        await stack.post(CHAT, chat())
        await trio.sleep(59)
        await stack.post(CHAT, chat())
        await trio.sleep(59)
        assert len(stack.engines.alive) == 1
        await trio.sleep(2)
        assert not stack.engines.alive
        assert (await stack.post(CHAT, chat())).status == 200


async def test_an_engine_with_less_context_than_declared_is_used_at_its_real_size(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_stack(config(model("m", variant(4096)))) as stack:
        stack.engines.facts = EngineFacts(slots=2, context=2048)
        assert (await stack.post(CHAT, chat())).status == 200
        assert "declares a context of 4096" in caplog.text
        one = json.loads((await stack.get("/v1/models/m")).content)
        assert one["context_length"] == 2048
        stack.engines.counted = 3000
        response = await stack.post(CHAT, chat(user="x", max_tokens=1900))
        assert error_of(response)["code"] == "context_length_exceeded"


# -- shutdown --------------------------------------------------------------------------------


async def test_a_shutdown_lets_streams_end_within_the_grace_and_refuses_everything_new(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"), shutdown_grace_s=5)) as stack:
        stack.engines.scripts = [[EVENT, 4.0, DONE], [EVENT, 1000.0, DONE]]
        answers = dict[str, bytes]()

        async def ask(label: str) -> None:
            answers[label] = await stream(stack, chat(stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "short")
            await trio.sleep(2)
            nursery.start_soon(ask, "long")
            await trio.sleep(0.5)
            stack.gateway.begin_shutdown()
            begun = trio.current_time()
            refused = await stack.post(CHAT, chat())
        assert (refused.status, error_of(refused)["code"]) == (503, "shutting_down")
        assert header(refused, "Retry-After") == "5"
        assert answers["short"] == EVENT + DONE
        assert b"shutting_down" in answers["long"]
        assert b"[DONE]" not in answers["long"]
        await stack.manager.stopped.wait()
        assert trio.current_time() - begun == pytest.approx(5.5, abs=0.1)


async def test_a_shutdown_answers_a_request_that_is_still_being_sent(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        client = stack.network.connect()
        await client.send_all(
            b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 1000\r\n\r\n{" % CHAT.encode()
        )
        await trio.sleep(10)
        stack.gateway.begin_shutdown()
        answer = await client.receive_some(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert trio.current_time() == pytest.approx(10)


async def test_a_shutdown_rejects_waiting_tickets_at_once(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 60

        async def shut_down() -> None:
            await trio.sleep(10)
            stack.gateway.begin_shutdown()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shut_down)
            response = await stack.post(CHAT, chat())
            assert trio.current_time() == pytest.approx(10, abs=0.1)
        assert (response.status, error_of(response)["code"]) == (503, "shutting_down")
        await stack.manager.stopped.wait()
        assert not stack.engines.alive


async def test_a_bug_in_the_gateway_is_a_500_with_the_details_in_the_log_only(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(config(model("m"))) as stack:

        def broken(*_: object) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(stack.gateway.front.names, "plain", broken)
        response = await stack.post(CHAT, chat())
        assert (response.status, error_of(response)["type"]) == (500, "internal_error")
        assert b"secret detail" not in response.content
        assert "secret detail" in caplog.text
