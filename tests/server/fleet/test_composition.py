"""A configuration with what other gateways list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.support.configurations import mistakes, smallest
from tests.support.schema_values import config, model
from trio_gateway.config.choice_schema import ChoiceConfig, Member, Strategy
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, GatewayConfig, PeerConfig
from trio_gateway.config.site_schema import SiteOptions
from trio_gateway.config.wake_schema import WakeOnLan, Way
from trio_gateway.server.fleet.composition import with_peers
from trio_gateway.server.fleet.listing import ListedModel

A, B = "http://a", "http://b"


def peer(name: str = "box", *urls: str, **fields: Any) -> PeerConfig:
    sites = tuple(SiteOptions(url=url, weight=2.0) for url in urls or (A,))
    options = EngineOptions(urls=urls or (A,), sites=sites, gateway=True)
    known = {"options": options, "timeouts": EngineTimeouts(), "pool": "remote", "parallel": 64}
    return PeerConfig(**{"name": name, **known, **fields})


def given(*peers: PeerConfig) -> GatewayConfig:
    return msgspec.structs.replace(config(model("here", aliases=("h",))), peers=peers)


def test_each_of_its_models_is_one_here_with_its_contexts() -> None:
    listed = ListedModel(
        "big", (8, 32), ("b",), "good", frozenset({"rerank", "slots"}), frozenset({"x"})
    )
    found, notes = with_peers(given(peer()), {"box": {A: (listed,)}})
    assert notes == []
    here, big = found.models
    assert here.name == "here"
    assert (big.name, big.aliases, big.peer, big.pool) == ("big", ("b",), "box", "remote")
    assert (big.description, big.endpoints) == ("good", frozenset({"rerank"}))
    assert [(v.name, v.context, v.parallel) for v in big.variants] == [("8", 8, 64), ("32", 32, 64)]
    options = big.variants[0].options
    assert (options.urls, options.served_name, options.gateway) == ((A,), "big", True)


def test_a_machine_that_can_be_woken_is_woken_for_each_of_its_models() -> None:
    wakes = SiteOptions(url=A, wake=WakeOnLan("0a:1b:2c:3d:4e:5f"))
    for_all = EngineOptions(urls=(A, B), sites=(wakes, SiteOptions(url=B)), wake_command=("/w",))
    listings = {"box": {A: (ListedModel("a", (1,)),), B: (ListedModel("b", (1,)),)}}
    found, _ = with_peers(given(peer(options=for_all)), listings)
    a, b = (one.variants[0].options.ways_to_wake for one in found.models[1:])
    assert (a, b) == ((Way(wakes.wake, ()),), (Way(None, ("/w",)),))


def test_without_a_list_there_are_the_file_s_models() -> None:
    assert with_peers(given(peer()), {})[0] == given(peer())


def test_only_those_that_are_named_if_some_are() -> None:
    listed = (ListedModel("a", (1,)), ListedModel("b", (1,)))
    found, notes = with_peers(given(peer(models=("b",))), {"box": {A: listed}})
    assert ([one.name for one in found.models], notes) == (["here", "b"], [])


def test_one_that_is_named_and_not_listed_is_said_with_near_names() -> None:
    listed = (ListedModel("qwen3", (1,)), ListedModel("b", (1,)))
    given_ = given(peer("box", A, B, models=("qwen",)))
    assert with_peers(given_, {"box": {A: listed}})[1] == []  # the other one may have it
    _, notes = with_peers(given_, {"box": {A: listed, B: ()}})
    assert notes == ['box: no model "qwen" is listed there; it has: qwen3']


def test_a_name_that_is_taken_is_left_to_whoever_has_it() -> None:
    members = (Member(name="here", model="here"),)
    choice = ChoiceConfig(name="coder", members=members, strategy=Strategy.LOADED)
    config_ = msgspec.structs.replace(given(peer(), peer("second", B)), written_choices=(choice,))
    first = tuple(ListedModel(name, (1,), ("here",)) for name in ("here", "h", "coder", "new"))
    second = (ListedModel("new", (9,)), ListedModel("other", (9,), ("new", "mine")))
    found, notes = with_peers(config_, {"box": {A: first}, "second": {B: second}})
    assert [(one.name, one.aliases, one.peer) for one in found.models[1:]] == [
        ("new", (), "box"),
        ("other", ("mine",), "second"),
    ]
    assert [note.partition(" is left out")[0] for note in notes] == [
        'box: its "here"', 'box: its "h"', 'box: its "coder"', 'second: its "new"',
    ]  # fmt: skip


def test_a_model_of_several_boxes_goes_to_those_that_list_it_and_holds_what_all_hold() -> None:
    large, small = ListedModel("m", (8, 16, 64)), ListedModel("m", (16,))
    listings = {"box": {A: (large, ListedModel("only", (4,))), B: (small,)}}
    found, _ = with_peers(given(peer("box", A, B)), listings)
    m, only = found.models[1:]
    assert [v.context for v in m.variants] == [8, 16]
    assert m.variants[0].options.urls == (A, B)
    assert [site.weight for site in m.variants[0].options.sites] == [2.0, 2.0]
    assert only.variants[0].options.urls == (A,)
    assert [site.url for site in only.variants[0].options.sites] == [A]


def test_a_choice_has_the_models_of_others_once_they_are_there(tmp_path: Path) -> None:
    lines = """
        models[2] = { name = "box", models = "all", urls = "http://a" }
        choices = { coder = { "m", "theirs@16", "theirs:8", "theirs:9" }, only = { "t" } }
    """
    read = smallest(tmp_path, lines)
    assert [choice.name for choice in read.choices] == ["coder"]
    assert [member.name for member in read.choices[0].members] == ["m"]
    listed = ListedModel("theirs", (8, 16), ("t",))
    found, _ = with_peers(read, {"box": {A: (listed,)}})
    assert [(one.name, [m.name for m in one.members]) for one in found.choices] == [
        ("coder", ["m", "theirs@16"]),
        ("only", ["theirs"]),
    ]
    assert not any(member.is_late for choice in found.choices for member in choice.members)
    (line,) = mistakes(tmp_path, 'choices = { coder = { "m", "theirs" } }')
    assert 'no model "theirs"' in line
