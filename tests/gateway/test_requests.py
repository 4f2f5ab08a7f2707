"""Requests of all families on their way through the gateway, with engines in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, header, stream
from tests.support.fakes import FakeKind
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import RewriteConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.server.http.types import HALF_CLOSED_S

MESSAGES = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.fixture(autouse=True)
def _all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake engine serves what a llama-server does."""
    served = LlamaCppKind.endpoints
    monkeypatch.setattr(FakeKind, "endpoints", served)


def answers(stack: Stack, **fields: Any) -> None:
    stack.engines.scripts = [[json.dumps(fields).encode()]]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": 3}]}),
        ("/v1/completions", {"prompt": 3}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/rerank", {"query": 3}),
        ("/v1/responses", {"input": 3}),
        ("/v1/messages", {"messages": 3}),
        ("/tokenize", {"content": {}}),
        ("/gateway/explain?endpoint=completions", {"prompt": 3}),
        ("/api/chat", {"messages": [{"role": "user", "images": ["x"]}]}),
    ],
)
async def test_the_model_is_known_before_anything_else_is_looked_at(
    autojump_clock: Clock, path: str, body: dict[str, Any]
) -> None:
    async with running_stack(config(model("m"))) as stack:
        unknown = await stack.post(path, json.dumps({**body, "model": "nope"}).encode())
        assert unknown.status == 404
        assert b"nope" in unknown.content
        assert (await stack.post(path, json.dumps({**body, "model": "m"}).encode())).status == 400


@pytest.mark.parametrize(
    ("name", "served_by"),
    [("m", "2048"), ("m@2048", "2048"), ("m@2049", "8192"), ("m:8192", "8192"), ("a:big", "8192")],
)
async def test_a_name_may_ask_for_a_variant(
    autojump_clock: Clock, name: str, served_by: str
) -> None:
    big = variant(8192, name="big") if name == "a:big" else variant(8192)
    served_by = "big" if name == "a:big" else served_by
    async with running_stack(config(model("m", variant(2048), big, aliases=("a",)))) as stack:
        answer = await stack.post(CHAT, chat(name))
        assert (answer.status, header(answer, "X-Gateway-Variant")) == (200, served_by)


async def test_what_does_not_fit_the_variant_that_was_asked_for_gets_a_larger_one(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(2048), variant(8192)))) as stack:
        answer = await stack.post(CHAT, chat("m:2048", max_tokens=4000))
        assert header(answer, "X-Gateway-Variant") == "8192"


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("m:nix", 404, 'no variant "nix"; it has: 2048, twin'),
        ("m:twin", 404, '"2048" has the same context'),
        ("m@99999", 400, "its largest has 2048"),
        ("m@many", 404, "expected a number of tokens"),
        ("m@" + "9" * 5000, 404, "expected a number of tokens"),
        ("@2048", 404, "there is no model"),
    ],
)
async def test_a_variant_that_there_is_not_is_an_error_that_says_what_there_is(
    autojump_clock: Clock, name: str, status: int, words: str
) -> None:
    two = model("m", variant(2048), variant(2048, name="twin"))
    async with running_stack(config(two)) as stack:
        answer = await stack.post(CHAT, chat(name))
        assert answer.status == status
        assert words in error_of(answer)["message"]
        assert not stack.engines.processes


async def test_a_name_with_marks_of_its_own_is_taken_as_it_is(autojump_clock: Clock) -> None:
    named = model("qwen:7b", variant(2048), variant(8192))
    async with running_stack(config(named)) as stack:
        assert (await stack.post(CHAT, chat("qwen:7b"))).status == 200
        answer = await stack.post(CHAT, chat("qwen:7b:8192"))
        assert header(answer, "X-Gateway-Variant") == "8192"


async def test_the_answer_says_the_name_that_was_asked_for(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", aliases=("a",)))) as stack:
        answers(stack, model="/srv/model.gguf", choices=[])
        assert json.loads((await stack.post(CHAT, chat("a"))).content)["model"] == "a"
        event = EVENT.replace(b"{", b'{"model":"x.gguf",', 1)
        stack.engines.scripts = [[event[:30], event[30:] + event, DONE]]
        assert await stream(stack, chat("a@99", stream=True)) == (
            event.replace(b"x.gguf", b"a@99") * 2 + DONE
        )


async def test_events_with_a_known_length_say_the_name_too(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", aliases=("alias",)))) as stack:
        event = EVENT.replace(b"{", b'{"model":"m",', 1)
        stack.engines.scripts = [[event, DONE]]
        stack.engines.more_headers = [(b"content-length", b"%d" % len(event + DONE))]
        text = await stream(stack, chat("alias", stream=True))
        assert text == event.replace(b'"m"', b'"alias"') + DONE


# -- rewriting ------------------------------------------------------------------------------------


async def test_fields_are_rewritten_only_where_that_is_configured(autojump_clock: Clock) -> None:
    how = RewriteConfig(set={"temperature": b"0.5"}, remove=("user",))
    async with running_stack(config(model("m"), model("r", rewrite=how))) as stack:
        body = chat("m", temperature=1.0, user="u")
        await stack.post(CHAT, body)
        await stack.post(CHAT, chat("r", temperature=1.0, user="u"))
        (_, _, plain), (_, _, changed) = stack.engines.requests
        assert plain == body
        assert json.loads(changed)["temperature"] == 0.5
        assert "user" not in json.loads(changed)


async def test_a_maximum_that_is_set_counts_for_the_choice(autojump_clock: Clock) -> None:
    how = RewriteConfig(set={"max_tokens": b"5000"})
    rewriting = model("m", variant(2048), variant(8192), rewrite=how)
    async with running_stack(config(rewriting)) as stack:
        answer = await stack.post(CHAT, chat("m"))
        assert header(answer, "X-Gateway-Variant") == "8192"


# -- families -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "target"),
    [
        ("/chat/completions", {"messages": [{}]}, CHAT),
        ("/v1/responses", {"input": "Hi"}, "/v1/responses"),
        ("/responses", {"input": [{"role": "user", "content": "Hi"}]}, "/v1/responses"),
        ("/v1/messages", {"messages": [{}]}, "/v1/messages"),
        ("/v1/messages/count_tokens", {"messages": [{}]}, "/v1/messages/count_tokens"),
        ("/completion", {"prompt": "Hi"}, "/completion"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, "/infill"),
        ("/tokenize", {"content": "Hi"}, "/tokenize"),
        ("/detokenize", {"tokens": [1]}, "/detokenize"),
        ("/apply-template", {"messages": [{}]}, "/apply-template"),
        ("/embedding", {"content": "Hi"}, "/embedding"),
        ("/embeddings", {"input": "Hi"}, "/v1/embeddings"),
        ("/rerank", {"query": "a", "documents": ["b"]}, "/v1/rerank"),
        ("/v1/reranking", {"query": "a", "documents": ["b"]}, "/v1/rerank"),
    ],
)
async def test_each_endpoint_reaches_its_engine_with_the_bytes_that_came(
    autojump_clock: Clock, path: str, body: dict[str, Any], target: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        data = json.dumps({**body, "model": "m"}).encode()
        answer = await stack.post(path, data, {"Content-Type": "application/json"})
        assert answer.status == 200
        assert stack.engines.requests == [(target, {b"content-type": b"application/json"}, data)]


async def test_the_need_of_each_is_that_of_all_its_text(autojump_clock: Clock) -> None:
    text = "word " * 1000  # 5000 bytes, and at least 1000 tokens
    bodies: dict[str, dict[str, Any]] = {
        "/v1/responses": {"input": "Hi", "instructions": text},
        "/v1/messages": {"system": text, "messages": [{"role": "user", "content": "Hi"}]},
        "/infill": {"input_prefix": text, "input_suffix": ""},
        "/embedding": {"content": text},
        "/v1/rerank": {"query": "q", "documents": ["short", text]},
    }
    small_and_large = model("m", variant(512), variant(16384))
    async with running_stack(config(small_and_large)) as stack:
        for path, body in bodies.items():
            answer = await stack.post(path, json.dumps({**body, "model": "m"}).encode())
            assert header(answer, "X-Gateway-Variant") == "16384", path
            assert int(header(answer, "X-Gateway-Need")) > 1000, path


@pytest.mark.parametrize("path", ["/props", "/slots"])
async def test_a_question_to_an_engine_names_its_model_in_the_query(
    autojump_clock: Clock, path: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.get(f"{path}?model=m")).status == 200
        assert (await stack.get(path)).status == 200  # the only one
        assert [target for target, _, _ in stack.engines.requests] == [path, path]
    async with running_stack(config(model("m"), model("n"))) as stack:
        assert error_of(await stack.get(path))["code"] == "model_not_found"


async def test_anthropics_clients_get_anthropics_errors(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.status = 400
        answers(stack, error={"code": 400, "message": "no", "type": "invalid_request_error"})
        refused = await stack.post("/v1/messages", MESSAGES)
        missing = await stack.post("/v1/messages", MESSAGES.replace(b'"m"', b'"n"'))
        wrong = await stack.post("/v1/messages", b"{}")
    for answer, status, kind in (
        (refused, 400, "invalid_request_error"),
        (missing, 404, "not_found_error"),
        (wrong, 400, "invalid_request_error"),
    ):
        assert answer.status == status
        body = json.loads(answer.content)
        assert (body["type"], body["error"]["type"]) == ("error", kind)
        assert int(header(answer, "content-length")) == len(answer.content)


async def test_a_stream_of_messages_that_breaks_off_ends_with_anthropics_error_event(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        start = b'event: message_start\ndata: {"message":{"model":"m"}}\n\n'
        stack.engines.scripts = [[start, 1000.0]]

        async def crash() -> None:
            await trio.sleep(5)
            stack.engines.alive[0].exit()

        body = json.dumps({**json.loads(MESSAGES), "stream": True}).encode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            url = "http://gateway/v1/messages"
            async with stack.http.stream("POST", url, content=body) as response:
                text = b"".join([piece async for piece in response.aiter_stream()])
        assert text.startswith(start + b'event: error\ndata: {"type":"error"')


async def test_anthropics_list_of_models_has_its_fields(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        url = "http://gateway/v1/models"
        answer = await stack.http.request("GET", url, headers=[("anthropic-version", "2023-06-01")])
        page = json.loads(answer.content)
        assert (page["first_id"], page["last_id"], page["has_more"]) == ("m", "n", False)
        assert [entry["type"] for entry in page["data"]] == ["model", "model"]


async def test_anthropics_model_is_an_entry_of_its_list(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("org/n"))) as stack:
        for url in ("http://gateway/v1/models", "http://gateway/models"):
            headers = [("anthropic-version", "2023-06-01")]
            page = json.loads((await stack.http.request("GET", url, headers=headers)).content)
            for entry in page["data"]:
                answer = await stack.http.request("GET", f"{url}/{entry['id']}", headers=headers)
                assert json.loads(answer.content) == entry
                assert {"type", "id", "display_name", "created_at"} <= entry.keys()
        plain = json.loads((await stack.get("/v1/models/m")).content)
        assert (plain["object"], "type" in plain) == ("model", False)


# -- one engine's own ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/upstream/m/", "/"),
        ("/upstream/m/a%2Fb?x=1&y=%20", "/a%2Fb?x=1&y=%20"),
        ("/upstream/org/n/v1/models", "/v1/models"),
        ("/upstream/org%2Fn/slots", "/slots"),
        ("/upstream/m@4096/x", "/x"),
    ],
)
async def test_anything_of_an_engine_is_passed_through(
    autojump_clock: Clock, path: str, target: str
) -> None:
    async with running_stack(config(model("m"), model("org/n"))) as stack:
        answer = await stack.get(path)
        assert answer.status == 200
        assert [asked for asked, _, _ in stack.engines.requests] == [target]


async def test_head_asks_the_engine_with_get(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.http.request("HEAD", "http://gateway/upstream/m/x")
        assert (answer.status, answer.content) == (200, b"")
        assert [target for target, _, _ in stack.engines.requests] == ["/x"]


async def test_a_page_without_its_slash_is_sent_to_the_one_with_it(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.get("/upstream/m?x=1")
        assert (answer.status, header(answer, "Location")) == (308, "/upstream/m/?x=1")
        assert not stack.engines.processes


@pytest.mark.parametrize("path", ["m/../x", "m/%2e%2e/x", "m/a%2F..%2Fx", "m/./x"])
async def test_a_path_that_leads_back_is_refused(autojump_clock: Clock, path: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.get(f"/upstream/{path}")
        assert error_of(answer)["code"] == "invalid_path"
        assert not stack.engines.processes


# -- loading and unloading ------------------------------------------------------------------------


async def test_a_model_is_loaded_and_unloaded_when_asked(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", variant(2048), variant(8192)))) as stack:
        loaded = await stack.post("/gateway/models/m@8192/load", b"")
        assert json.loads(loaded.content)["variant"] == "8192"
        assert len(stack.engines.alive) == 1
        unloaded = await stack.post("/gateway/models/m/unload", b"")
        assert json.loads(unloaded.content) == {"model": "m", "engines_stopped": 1}
        assert not stack.engines.alive


async def test_an_unload_waits_for_the_requests_under_way(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[20.0, b"{}"]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stack.post, CHAT, chat())
            await stack.engines.launched.wait()
            await trio.sleep(5)
            begun = trio.current_time()
            await stack.post("/gateway/models/m/unload", b"")
            assert 15 < trio.current_time() - begun < 20


async def test_force_ends_them_with_an_error_that_says_so(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT.replace(b"{", b'{"model":"m",', 1), 1000.0]]
        texts = []

        async def ask() -> None:
            texts.append(await stream(stack, chat(stream=True)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await stack.engines.launched.wait()
            await trio.sleep(5)
            answer = await stack.post("/gateway/models/m/unload?force=true", b"")
            assert answer.status == 200
        assert b'"code":"model_unloaded"' in texts[0]
        assert not stack.engines.alive


async def test_a_pinned_model_outlives_its_idle_timeout(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        pinned = await stack.post("/gateway/models/m/pin", b"")
        assert json.loads(pinned.content) == {"model": "m", "pinned": True}
        await stack.post(CHAT, chat())
        await trio.sleep(10_000)
        assert len(stack.engines.alive) == 1
        await stack.post("/gateway/models/m/pin?pinned=false", b"")
        await trio.sleep(10)
        assert not stack.engines.alive


@pytest.mark.parametrize("action", ["load", "unload", "pin"])
async def test_only_models_that_there_are(autojump_clock: Clock, action: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.post(f"/gateway/models/nix/{action}", b"")
        assert (answer.status, error_of(answer)["code"]) == (404, "model_not_found")


async def test_a_flag_is_true_or_false(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.post("/gateway/models/m/unload?force=perhaps", b"")
        assert error_of(answer)["param"] == "force"


# -- the dry run ----------------------------------------------------------------------------------


async def test_a_dry_run_counts_what_a_rewrite_makes_of_it(autojump_clock: Clock) -> None:
    how = RewriteConfig(set={"max_tokens": b"5000"})
    rewriting = model("m", variant(2048), variant(8192), rewrite=how)
    async with running_stack(config(rewriting)) as stack:
        found = json.loads((await stack.post("/gateway/explain", chat("m"))).content)
        assert (found["answer"], found["variant"]) == (5000, "8192")


async def test_a_dry_run_is_told_its_endpoint(autojump_clock: Clock) -> None:
    body = json.dumps({"model": "m", "system": "word " * 500, "messages": [{"role": "user"}]})
    async with running_stack(config(model("m"))) as stack:
        path = "/gateway/explain"
        chat_, messages = [
            json.loads((await stack.post(path + query, body.encode())).content)["bounds"]["lower"]
            for query in ("?endpoint=chat/completions", "?endpoint=messages")
        ]
        assert chat_ < 500 <= messages
        refused = await stack.post(path + "?endpoint=tokenize", body.encode())
        assert error_of(refused)["code"] == "unknown_endpoint"


@pytest.mark.parametrize("path", ["/upstream%2Fm", "/upstream%2Fm/x"])
async def test_a_place_that_is_spelt_another_way_is_none(autojump_clock: Clock, path: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert error_of(await stack.get(path))["code"] == "unknown_path"
        assert not stack.engines.processes


async def test_with_force_those_that_wait_are_told_as_well(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 100
        answers_: list[Any] = []

        async def ask() -> None:
            answers_.append(await stack.post(CHAT, chat()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await stack.engines.launched.wait()
            await stack.post("/gateway/models/m/unload?force=true", b"")
        assert error_of(answers_[0])["code"] == "model_unloaded"
        assert not stack.engines.alive


@pytest.mark.parametrize("headers", [{}, {"Anthropic-Version": "2023-06-01"}])
async def test_an_engine_s_own_error_has_the_shape_that_its_client_knows(
    autojump_clock: Clock, headers: dict[str, str]
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.status = 400
        answers(stack, error={"message": "no such thing", "type": "x", "code": 400})
        answer = await stack.post(CHAT, chat(), headers)
    body = json.loads(answer.content)
    assert answer.status == 400
    assert body["error"]["message"] == "no such thing"
    assert body.get("type") == ("error" if headers else None)


async def test_an_engine_s_error_that_ollamas_path_and_anthropics_header_meet_in_is_anthropics(
    autojump_clock: Clock,
) -> None:
    """As the gateway's own errors there."""
    async with running_stack(config(model("m"))) as stack:
        stack.engines.status = 418
        answers(stack, error={"message": "unlucky", "code": 7})
        answer = await stack.post("/api/chat", chat(stream=False), {"Anthropic-Version": "x"})
    error = {"type": "invalid_request_error", "message": "unlucky"}
    assert json.loads(answer.content) == {"type": "error", "error": error}


async def test_an_engine_s_error_in_plain_text_becomes_json_that_says_so(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_text(*_: object) -> list[tuple[bytes, bytes]]:
        return [(b"content-type", b"text/plain"), (b"content-length", b"4")]

    async with running_stack(config(model("m"))) as stack:
        stack.engines.status, stack.engines.scripts = 500, [[b"oops"]]
        monkeypatch.setattr(stack.engines.client_type, "transform_response", in_text)
        answer = await stack.post("/v1/messages", MESSAGES)
    assert json.loads(answer.content)["error"]["message"].endswith("status 500: oops")
    assert header(answer, "content-type") == "application/json"


# -- clients that leave ----------------------------------------------------------------------------


async def waiting(stack: Stack) -> int:
    return len(json.loads((await stack.get("/gateway/queue")).content)["tickets"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/gateway/models/m/load", b""),
        ("GET", "/slots?model=m", b""),
        ("GET", "/upstream/m/slots", b""),
        ("POST", CHAT, chat()),
    ],
)
async def test_a_client_that_leaves_while_it_waits_gives_up_its_ticket(
    autojump_clock: Clock, method: str, path: str, body: bytes
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 1000
        client = stack.network.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(body)}\r\n\r\n"
        await client.send_all(head.encode() + body)
        await stack.engines.launched.wait()
        assert await waiting(stack) == 1
        await client.aclose()
        await trio.sleep(HALF_CLOSED_S + 0.01)
        assert await waiting(stack) == 0
