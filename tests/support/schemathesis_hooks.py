"""Loaded by schemathesis: requests for models that exist, so that most reach an engine."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MODEL = os.environ["GATEWAY_TEST_MODEL"]


def _named(values: Any) -> Any:
    if isinstance(values, dict) and isinstance(name := values.get("model"), str) and name:
        values["model"] = MODEL
    return values


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    return _named(body)


@schemathesis.hook
def map_path_parameters(context: schemathesis.HookContext, path_parameters: Any) -> Any:
    return _named(path_parameters)


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: Any) -> Any:
    return _named(query)
