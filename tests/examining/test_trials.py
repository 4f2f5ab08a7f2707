"""What engines did in trials, held against what the configuration says."""

from __future__ import annotations

import zlib
from typing import Any

import click
import msgspec
import pytest

from tests.support.schema_values import config, model, variant
from trio_gateway.commands.doctor_start import chosen_variants
from trio_gateway.config.choice_schema import ChoiceConfig, Member
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.examining.asking import red_square
from trio_gateway.examining.seen import Seen, SeenGateway, SeenPort
from trio_gateway.examining.trial import Trial, Tried
from trio_gateway.examining.trials import on_trials

GIB = 2**30
CONFIG = msgspec.structs.replace(
    config(
        model("m", variant(4096, name="v", memory_bytes=4 * GIB), aliases=("also",)),
        model("n", variant(1024), variant(2048)),
    ),
    choices=(ChoiceConfig(name="either", members=(Member("m", "m"), Member("n", "n@1024"))),),
)


def trial(**fields: Any) -> Trial:
    return Trial(key=VariantKey("m", "v"), **fields)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"failure": "the engine exited"}, "m:v did not start: the engine exited"),
        ({"asked": Tried(False, "status 500")}, "m:v starts, and does not answer: status 500"),
        ({"context": 2048}, "m:v: one request gets 2048 tokens, and not the 4096 that"),
        ({"memory_bytes": 5 * GIB}, "m:v: it took 5.0 GiB, and declares 4.0 GiB; raise"),
        ({"restore": Tried(False, "only 1")}, "m:v: a restored cache does not help: only 1"),
        ({"tools": Tried(False, "status 400")}, "m:v: tools do not work: status 400"),
        ({"images": Tried(False, "x")}, "m:v: images do not work: x"),
    ],
)
def test_what_is_told(fields: dict[str, Any], line: str) -> None:
    (found,) = on_trials(CONFIG, [trial(**fields)])
    assert found.line.startswith(line)


def test_what_is_fine() -> None:
    fine = trial(context=4096, memory_bytes=GIB, asked=Tried(True), restore=Tried(None, "off"))
    assert on_trials(CONFIG, [fine]) == []


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ((), ["m:v", "n:1024", "n:2048"]),
        (("also",), ["m:v"]),
        (("n:2048", "m", "n"), ["n:2048", "m:v", "n:1024"]),
        (("also@4096", "n@1024"), ["m:v", "n:1024"]),
        (("either",), ["m:v", "n:1024", "n:2048"]),
    ],
)
def test_which_variants_are_tried(names: tuple[str, ...], chosen: list[str]) -> None:
    assert [f"{m.name}:{v.name}" for m, v in chosen_variants(CONFIG, names)] == chosen


def test_a_name_of_no_model() -> None:
    with pytest.raises(click.UsageError, match="there is no model x; there are m, n"):
        chosen_variants(CONFIG, ["m", "x"])


@pytest.mark.parametrize(
    ("seen", "holders"),
    [
        (Seen(), 0),
        (Seen(gateways=(SeenGateway(9),)), 0),  # it holds nothing
        (Seen(gateways=(SeenGateway(9, 2),)), 1),
        (Seen(ports={"a": SeenPort("", "", 9, is_gateway=True)}, gateways=(SeenGateway(9),)), 0),
        (Seen(ports={"a": SeenPort("", "", None, is_gateway=True)}), 1),  # of another user
        (Seen(ports={"a": SeenPort("", "pid 9 (nginx)", 9)}), 0),
    ],
)
def test_gateways_that_hold_memory(seen: Seen, holders: int) -> None:
    assert len(seen.holders) == holders


def test_the_image_is_one() -> None:
    data = red_square(2)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    start = data.index(b"IDAT") + 4
    pixels = zlib.decompress(data[start:])
    assert pixels == (b"\0" + b"\xe0\x10\x10" * 2) * 2
