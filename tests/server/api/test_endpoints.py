"""The table of endpoints: each row is routed, and the documents that are made of it say so."""

from __future__ import annotations

import json
import re
from typing import Any

import httpcore
import pytest

from tests.support.asking import Clock, header
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.server.api.endpoint import Body, Endpoint, Family
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.openapi import document as openapi
from trio_gateway.server.openapi import markdown as api_docs

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ROWS = [(row, path) for row in ENDPOINTS for path in row.paths]


def url(path: str) -> str:
    return "http://gateway" + path.replace("{model}", "nix").replace("{rest}", "x").replace(
        "{file}", "app.js"
    )


async def ask(stack: Stack, method: str, path: str) -> httpcore.Response:
    """Of an answer without an end only what comes before its body."""
    if method == "GET" and path == "/gateway/events":
        async with stack.http.stream(method, url(path)) as answer:
            return httpcore.Response(answer.status, headers=answer.headers, content=b"")
    return await stack.http.request(method, url(path))


def assert_shape(answer: httpcore.Response, path: str) -> str:
    """The message of an error, which must have the shape of its path's family."""
    body = json.loads(answer.content)
    assert header(answer, "content-type") == "application/json"
    if path.startswith("/api/"):
        assert set(body) == {"error"}
        message = body["error"]
    elif path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        message = body["error"]["message"]
    else:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        message = body["error"]["message"]
    assert isinstance(message, str)
    return message


def allowed(path: str) -> set[str]:
    """What the rows with this path take; GET brings HEAD with it, and all have OPTIONS."""
    taken = {method for row, known in ROWS if known == path for method in row.methods}
    return taken | {"OPTIONS"} | ({"HEAD"} if "GET" in taken else set())


async def test_each_row_is_routed_and_no_other_method_is(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for row, path in ROWS:
            for method in (*METHODS, "TRACE"):
                answer = await ask(stack, method, path)
                if method in row.methods:
                    assert answer.status in (200, 302, 400, 404, 426, 501), (method, path)
                    if answer.status == 404:
                        said = assert_shape(answer, path)
                        assert said.startswith(
                            (
                                "there is no model",
                                "there is no request",
                                "there is no choice",
                                "there is no yield",
                            )
                        )
                    continue
                # A path with values in it may be one of another row, too.
                if answer.status == 405 or "{" not in path:
                    assert answer.status == 405, (method, path)
                    assert_shape(answer, path)
                    assert set(header(answer, "Allow").split(", ")) >= allowed(path)
        assert not stack.engines.processes


async def test_head_goes_with_get_and_options_says_what_there_is(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for row, path in ROWS:
            options = await ask(stack, "OPTIONS", path)
            assert options.status == 200, path
            assert set(header(options, "Allow").split(", ")) >= allowed(path), path
            if "GET" in row.methods:
                get, head = await ask(stack, "GET", path), await ask(stack, "HEAD", path)
                assert (head.status, head.content) == (get.status, b""), path


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("/qqq", "GET /openapi.json lists every path"),
        ("/v1/messages/count_token", "did you mean /v1/messages/count_tokens?"),
        ("/v1//models", "did you mean /v1/models?"),
        ("/api/nothing/of/the/kind", ""),
        ("/" + "x/" * 4000, ""),
    ],
)
async def test_an_unknown_path_is_a_404_with_a_hint(
    autojump_clock: Clock, path: str, hint: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.get(path)
        assert answer.status == 404
        assert hint in assert_shape(answer, path)


# -- the documents --------------------------------------------------------------------------------


def test_the_api_document_is_up_to_date() -> None:
    written = (api_docs.ROOT / api_docs.DOCUMENT).read_text(encoding="utf-8")
    assert written == api_docs.written(), f"run `{api_docs.COMMAND}`"


def references(value: Any) -> set[str]:
    match value:
        case {"$ref": str(name)}:
            return {name}
        case dict():
            return set().union(*map(references, value.values())) if value else set()
        case list():
            return set().union(*map(references, value)) if value else set()
    return set()


def test_the_openapi_document_has_every_row_and_refers_to_nothing_that_is_missing() -> None:
    document = json.loads(openapi.encoded())
    for row, path in ROWS:
        for method in row.methods:
            operation = document["paths"][path][method.lower()]
            assert operation["summary"] == row.summary
            names = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert names == set(re.findall(r"\{(\w+)\}", path))
    for name in references(document):
        part = document
        for step in name.removeprefix("#/").split("/"):
            part = part[step]
    operations = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(operations) == len(set(operations))


def test_a_row_of_any_kind_can_be_documented() -> None:
    for family in Family:
        for body in Body:
            row = Endpoint(name="x", paths=("/x",), family=family, summary="X.", body=body)
            assert openapi.document([row])["paths"]["/x"]["post"]["tags"] == [family.value]
            assert "`POST /x`" in api_docs.written([row])


async def test_the_document_is_served(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.get("/openapi.json")
        assert header(answer, "content-type") == "application/json"
        assert answer.content == openapi.encoded()


def test_for_vectors_ranks_and_counts_nothing_is_generated() -> None:
    found = {row.name for row in ENDPOINTS if row.needs_engine and row.only_reads}
    assert {
        "embeddings", "embedding", "rerank", "tokenize", "detokenize", "apply-template",
        "chat/completions/input_tokens", "messages/count_tokens", "api/embed", "api/embeddings",
        "slots", "props",
    } <= found  # fmt: skip
    assert not found & {
        "chat/completions", "completions", "completion", "infill", "responses", "messages",
        "api/chat", "api/generate", "audio/speech", "audio/transcriptions", "images/generations",
        "images/edits", "realtime", "upstream",
    }  # fmt: skip
