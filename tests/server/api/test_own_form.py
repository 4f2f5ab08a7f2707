"""Which form a body has at `/completions` and `/embeddings`, where llama.cpp and OpenAI differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.rawjson import members
from trio_gateway.server.api.endpoints import COMPLETION, EMBEDDING
from trio_gateway.server.api.own_form import gives_token_vectors, is_own_form

PARTS = {"prompt_string": "Look: <__media__>", "multimodal_data": ["AA=="]}


@pytest.mark.parametrize(
    ("body", "is_own"),
    [
        ({"prompt": "Hi"}, False),
        ({"prompt": "Hi", "max_tokens": 5}, False),
        ({"prompt": ["Hi", "{}"]}, False),  # a text with a brace in it is no object
        ({"prompt": [1, 2, 3]}, False),
        ({"prompt": "Hi", "cache_prompt": True, "id_slot": 0, "top_k": 3, "grammar": ""}, False),
        ({"prompt": "Hi", "n_predict": 5}, True),
        ({"prompt": "Hi", "max_tokens": 5, "n_predict": 5}, True),
        ({"prompt": "Hi", "n_probs": 2}, True),
        ({"prompt": PARTS}, True),
        ({"prompt": [PARTS]}, True),
        ({"prompt": ["Hi", PARTS]}, True),
    ],
)
def test_a_completion_is_told_by_its_fields(body: dict[str, Any], is_own: bool) -> None:
    assert is_own_form(COMPLETION, "m", members(json.dumps(body).encode())) is is_own
    spaced = json.dumps(body, indent=2).encode()
    assert is_own_form(COMPLETION, "m", members(spaced)) is is_own


@pytest.mark.parametrize(
    ("body", "is_own"),
    [
        ({"input": "Hi"}, False),
        ({"input": ["Hi"], "encoding_format": "base64", "dimensions": 3}, False),
        ({"content": "Hi"}, True),
        ({"input": "Hi", "embd_normalize": -1}, True),
        ({"input": [PARTS]}, True),
    ],
)
def test_an_embedding_is_told_by_its_fields(body: dict[str, Any], is_own: bool) -> None:
    assert is_own_form(EMBEDDING, "m", members(json.dumps(body).encode())) is is_own


@pytest.mark.parametrize("own", [COMPLETION, EMBEDDING])
def test_openai_s_form_names_a_model(own: Any) -> None:
    assert is_own_form(own, None, members(b'{"prompt": "Hi", "input": "Hi"}'))


@pytest.mark.parametrize("gives", [True, False])
def test_a_vector_for_each_token_has_no_place_in_openai_s_form(gives: bool) -> None:
    subject = model("m", variant(), variant(8192, gives_token_vectors=gives))
    assert gives_token_vectors(EMBEDDING, subject) is gives
    assert not gives_token_vectors(COMPLETION, subject)
