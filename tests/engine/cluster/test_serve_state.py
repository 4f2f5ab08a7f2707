"""What Ray Serve says, from answers of a real one, and what it is told."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.support.fake_serve import RECORDED
from trio_gateway.engine.cluster.room import no_room, usage_of
from trio_gateway.engine.cluster.serve_state import ServeState, Status, Unwritable

BAD, BIG, FULL = (f"trio-gateway-00000000-{name}" for name in ("bad", "big", "full"))
OTHERS = "others-app"


def state(name: str = "running", **changed: Any) -> ServeState:
    answer = copy.deepcopy(RECORDED[name])
    answer["applications"].update(changed)
    return ServeState(json.dumps(answer).encode())


def test_how_applications_stand() -> None:
    subject = state()
    others, failed, waits = (subject.standing(name) for name in (OTHERS, BAD, BIG))
    assert (others.status, others.running, others.starting) == (Status.RUNNING, 1, 0)
    assert failed.status is Status.DEPLOY_FAILED
    assert failed.lines[0].startswith("Failed to update")
    assert failed.lines[-1].startswith("Error: the model could not be served")
    assert not any("\x1b" in line for line in failed.lines)
    assert (waits.status, waits.starting, waits.placed) == (Status.DEPLOYING, 1, 0)
    assert subject.standing("nobody").status is Status.ABSENT
    assert subject.http_port == 8000
    assert subject.of("trio-gateway-00000000-") == [BAD, BIG, FULL]


def test_those_on_their_way_out_are_not_there() -> None:
    subject = state("deleting")
    assert subject.of("") == [OTHERS]
    assert subject.is_clearing


def test_an_empty_cluster_has_none() -> None:
    subject = state("empty")
    assert (subject.names, subject.http_port) == ([], 8000)
    assert subject.changed({"a": {"name": "a"}}, ()) == {"applications": [{"name": "a"}]}


def test_others_are_written_as_they_were() -> None:
    written = state().changed({"mine": {"name": "mine"}}, [BAD])
    before = RECORDED["running"]
    by_name = {config["name"]: config for config in written["applications"]}
    assert [*by_name] == [OTHERS, BIG, FULL, "mine"]
    assert by_name[OTHERS] == before["applications"][OTHERS]["deployed_app_config"]
    assert written["http_options"] == before["http_options"]
    assert written["proxy_location"] == before["proxy_location"]


def test_the_clusters_target_capacity_stays() -> None:
    answer = {"applications": {}, "target_capacity": 50.0}
    subject = ServeState(json.dumps(answer).encode())
    assert subject.changed({}, ())["target_capacity"] == 50.0


def test_one_that_was_deployed_by_a_program_is_no_part_of_it() -> None:
    subject = state(run={"status": "RUNNING", "source": "imperative", "deployed_app_config": None})
    written = subject.changed({}, ())
    assert "run" not in {config["name"] for config in written["applications"]}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (None, "does not say yet how x is configured"),
        ({"name": "x", "runtime_env": {"env_vars": {"A": "<redacted>"}}}, "would break it"),
    ],
)
def test_what_would_harm_others_is_not_written(config: Any, why: str) -> None:
    shown = {"status": "RUNNING", "source": "declarative", "deployed_app_config": config}
    with pytest.raises(Unwritable, match=why):
        state(x=shown).changed({"mine": {"name": "mine"}}, ())


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"applications": 3}'])
def test_what_is_no_answer_of_serve_says_so(answer: bytes) -> None:
    with pytest.raises(ValueError, match="not what Ray Serve says"):
        ServeState(answer)


# -- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"CPU": 0.5, "GPU": 1.0}, "it needs 1 GPU, and no node has any"),
        ({"CPU": 4.0}, "it needs 4 CPU, and the largest node has 2 CPU"),
        (
            {"CPU": 2.0},
            "it needs 2 CPU, and no node has more than 1 CPU free (others-app has 0.5 CPU",
        ),
        ({"memory": 64 * 2**30}, "it needs 64.0 GiB of memory, and the largest node has 21.4 GiB"),
        ({"my_card": 1.0}, "it needs 1 my_card, and no node has any"),
    ],
)
def test_no_room_names_what_is_missing_and_who_has_it(needs: dict[str, float], words: str) -> None:
    usage = usage_of(RECORDED["usage"])
    assert usage is not None
    assert words in (no_room(needs, usage, state()) or "")
    assert not usage.is_growing


def test_room_is_room() -> None:
    usage = usage_of(RECORDED["usage"])
    assert usage is not None
    assert no_room({"CPU": 1.0, "GPU": 0.0, "object_store_memory": 1.0}, usage, state()) is None
    assert usage_of({"data": {}}) is None
