"""What another gateway's list of models is read as, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.schema_values import known_model, model, variant
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.server.fleet.listing import (
    MODELS_MAX,
    ListedModel,
    furthest,
    read_listing,
)
from trio_gateway.server.handlers.model_lists import as_own_list


def listing(*entries: Any) -> bytes:
    return json.dumps({"object": "list", "data": entries}).encode()


def test_what_one_gateway_lists_the_other_reads() -> None:
    given = model("qwen", variant(8192), variant(32768), aliases=("q",), description="good")
    served = frozenset({"chat/completions", "responses"})
    loaded = ModelLoad(LoadState.LOADED, "8192")
    known = known_model(given, ModelFacts(), loaded, served)
    theirs = known_model(model("theirs", peer="box3"))
    body = json.dumps(as_own_list([known, theirs], 0)).encode()
    (read,) = read_listing(body)
    assert (read.name, read.aliases, read.description) == ("qwen", ("q",), "good")
    assert read.contexts == (8192, 32768)
    assert read.endpoints == served
    assert read.load == loaded


def test_other_servers_say_their_context_otherwise() -> None:
    assert read_listing(listing({"id": "a", "max_model_len": 4096})) == (ListedModel("a", (4096,)),)
    assert read_listing(listing({"id": "a", "context_length": 1, "contexts": []}))


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "no context"}, {"id": "", "contexts": [1]}, {"id": "a\n", "contexts": [1]},
        {"id": "x" * 300, "contexts": [1]}, {"id": "a", "contexts": [0, -1]}, {"contexts": [1]},
        {"id": "a", "contexts": ["1"]}, {"id": "a", "contexts": [2**50]}, 7, None,
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_left_out(entry: Any) -> None:
    good = {"id": "good", "contexts": [1]}
    assert [found.name for found in read_listing(listing(entry, good))] == ["good"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data":{}}', b"<html>", b"[" * 10_000])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="no list of models"):
        read_listing(body)


def test_a_list_without_end_is_cut() -> None:
    many = ({"id": f"m{n}", "contexts": [1]} for n in range(MODELS_MAX + 5))
    assert len(read_listing(listing(*many))) == MODELS_MAX


def test_of_several_places_the_one_where_it_is_loaded_counts() -> None:
    loaded, failed = ModelLoad(LoadState.LOADED), ModelLoad(LoadState.UNLOADED, has_failed=True)
    unloaded, loading = ModelLoad(LoadState.UNLOADED), ModelLoad(LoadState.LOADING)
    assert furthest([failed, loading, loaded]) is loaded
    assert furthest([failed, unloaded]) is unloaded
