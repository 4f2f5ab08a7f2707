"""Fields by which a hosted site would answer with another model than the one that was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from trio_gateway.server.api.model_choosers import chooser_among, is_chooser


@pytest.mark.parametrize(
    "name",
    [
        "models", "route", "fallbacks", "fallback", "extra_body", "provider", "preset", "plugins",
        "Models", "MODELS", "Model", "MODEL", "model[]", "models[0]", "model ", "extraBody",
        "extra-body", "model\u017f", "fallbac\u212as", "providerOptions",
        "context_window_fallbacks", "model.name",
    ],
)  # fmt: skip
def test_names_that_choose_models(name: str) -> None:
    assert is_chooser(name)


@pytest.mark.parametrize(
    "name",
    ["model", "messages", "prompt", "max_tokens", "tools", "stream", "metadata", "modalities",
     "response_format", "reasoning_effort", "service_tier", "file", "language", "top_k", "n"],
)  # fmt: skip
def test_names_that_do_not(name: str) -> None:
    assert not is_chooser(name)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model": "m", "models": ["a"]}, "models"),
        ({"model": "m", "tools": [{"type": "image_generation", "model": "a"}]}, "tools: model"),
        ({"model": "m", "x": {"y": [{"Model": "a"}]}}, "x: Model"),
        ({"model": "m", "session": {"audio": {"input": {"transcription": {"model": "a"}}}}},
         "session: model"),
        ({"model": "m", "x": [[]] * 6000}, "x"),
    ],
)  # fmt: skip
def test_what_is_found_is_named(values: dict[str, Any], field: str) -> None:
    assert chooser_among(values) == field


@pytest.mark.parametrize(
    "values",
    [
        {"model": "m", "messages": [{"role": "user", "content": [{"model": "a"}]}]},
        {"model": "m", "input": [{"model": "a"}], "metadata": {"model": "a"}},
        {"model": "m", "tools": [{"type": "function", "function": {"parameters": {"model": 1}}}]},
        {"model": "m", "tools": [{"input_schema": {"properties": {"model": {"type": "string"}}}}]},
        {"model": "m", "response_format": {"json_schema": {"properties": {"models": {}}}}},
    ],
)
def test_what_a_request_is_about_chooses_nothing(values: dict[str, Any]) -> None:
    assert chooser_among(values) is None


# Made by the test that wants it: each worker of a run collects all tests, and would keep a million.
LARGE: dict[str, Callable[[], Any]] = {
    "list": lambda: [{}] * 10**6,
    "object": lambda: dict.fromkeys(map(str, range(10**6)), ()),
    "nested": lambda: [[[]]] * 10**6,
}


@pytest.mark.parametrize("large", LARGE)
def test_a_large_field_is_not_looked_through(large: str) -> None:
    value = LARGE[large]()
    began = time.process_time()
    assert chooser_among({"x": value}) == "x"
    assert time.process_time() - began < 0.05
