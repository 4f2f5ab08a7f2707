"""A request that is too long, in the words and fields of the API that was asked."""

from __future__ import annotations

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.models.need.excess import excess_of
from trio_gateway.server.api.context_errors import ContextTooLong, terms_of
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.endpoints import CHAT, EMBEDDINGS, ENDPOINTS

BY_NAME = {row.name: row for row in ENDPOINTS}


def error(
    endpoint: Endpoint, *sent: str, family: Family = Family.OPENAI, fixed: tuple[str, ...] = ()
) -> ContextTooLong:
    excess = excess_of(model("m", variant(4096)), 4096, 5000, 8, clamps=False)
    terms = terms_of(endpoint, family, sent.__contains__, fixed)
    return ContextTooLong(excess, terms, endpoint.content[0])


@pytest.mark.parametrize(
    ("path", "sent", "family", "named"),
    [
        ("chat/completions", ["max_tokens"], Family.OPENAI, "max_tokens"),
        ("chat/completions", ["max_completion_tokens"], Family.OPENAI, "max_completion_tokens"),
        (
            "chat/completions",
            ["max_tokens", "max_completion_tokens"],
            Family.OPENAI,
            "max_completion_tokens",
        ),
        ("chat/completions", ["n_predict"], Family.OPENAI, "n_predict"),
        ("chat/completions", ["max_tokens", "n_predict"], Family.OPENAI, "n_predict"),
        ("chat/completions", ["max_output_tokens", "max_tokens"], Family.OPENAI, "max_tokens"),
        ("responses", ["max_output_tokens"], Family.OPENAI, "max_output_tokens"),
        ("responses", ["max_tokens", "max_output_tokens"], Family.OPENAI, "max_output_tokens"),
        ("messages", ["max_tokens"], Family.ANTHROPIC, "max_tokens"),
        ("completion", ["n_predict"], Family.LLAMACPP, "n_predict"),
        ("infill", ["n_predict"], Family.LLAMACPP, "n_predict"),
        ("chat/completions", ["max_tokens"], Family.OLLAMA, "num_predict"),
        ("infill", ["n_predict"], Family.OLLAMA, "num_predict"),
    ],
)
def test_the_answers_maximum_has_the_clients_name(
    path: str, sent: list[str], family: Family, named: str
) -> None:
    assert f"8 for the answer ({named})" in error(BY_NAME[path], *sent, family=family).message


def test_a_maximum_that_the_configuration_sets_is_not_the_clients_to_lower() -> None:
    assert "set by the configuration" in error(CHAT, "max_tokens", fixed=("max_tokens",)).message


def test_openais_clients_get_a_code_and_the_field() -> None:
    found = error(CHAT).body()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert (found["type"], found["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert found["param"] == "messages"


def test_llamacpps_clients_get_its_type_and_numbers() -> None:
    found = error(CHAT).body(Family.LLAMACPP)["error"]
    assert found["type"] == "exceed_context_size_error"
    assert (found["n_prompt_tokens"], found["n_ctx"]) == (5000, 4096)
    assert found["code"] == "context_length_exceeded"
    assert found["message"].startswith(
        "request (5000 tokens) exceeds the available context size (4096 tokens): the request needs "
    )


def test_an_answer_that_is_too_long_is_no_fault_of_the_request_by_llamacpps_words() -> None:
    excess = excess_of(model("m", variant(4096)), 4096, 4095, 99, clamps=False)
    found = ContextTooLong(excess, terms_of(CHAT, Family.LLAMACPP, set().__contains__), None)
    said = found.body(Family.LLAMACPP)["error"]["message"]
    assert said == found.message
    assert "exceeds" not in said


def test_anthropics_clients_get_its_sentence() -> None:
    assert error(CHAT).body(Family.ANTHROPIC) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 5000 tokens > 4096 maximum",
        },
    }


def test_ollamas_clients_get_one_text() -> None:
    assert set(error(CHAT).body(Family.OLLAMA)) == {"error"}


def test_an_input_is_not_called_a_prompt() -> None:
    assert "from the largest input" in error(EMBEDDINGS).message
    assert "from the query with the largest document" in error(BY_NAME["rerank"]).message
