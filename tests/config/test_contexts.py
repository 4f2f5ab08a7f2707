"""The configuration of contexts, answers and KV carry-over."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.configurations import mistakes, smallest


def test_what_a_model_says_of_its_contexts_and_its_cache(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        model.image_tokens, model.headroom, model.clamp_answer = 256, 0, true
        model.min_answer_tokens, model.kv_carryover, model.kv_conversations = 100, false, 3
        server.kv_carryover = { directory = "kv", max_size = "1GiB", persist = true }
        """,
    )
    (model,) = config.models
    assert (model.image_tokens, model.headroom, model.clamp_answer) == (256, 0.0, True)
    assert (model.min_answer_tokens, model.kv_carryover, model.kv_conversations) == (100, False, 3)
    carryover = config.server.kv_carryover
    assert carryover is not None
    assert carryover.directory == tmp_path / "kv"
    assert (carryover.max_bytes, carryover.persist) == (2**30, True)


def test_without_a_word_caches_are_carried_over_and_false_switches_that_off(
    tmp_path: Path,
) -> None:
    config = smallest(tmp_path)
    assert config.models[0].kv_carryover
    assert config.server.kv_carryover is not None
    assert config.server.kv_carryover.directory is None
    off = smallest(tmp_path, "server.kv_carryover = false")
    assert off.server.kv_carryover is None


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('server.kv_carryover = { directory = "" }', "server.kv_carryover.directory: expected"),
        ('server.kv_carryover = { max_size = "much" }', "server.kv_carryover.max_size: expected"),
        ("server.kv_carryover = { persist = 1 }", "server.kv_carryover.persist: expected"),
        ("server.kv_carryover = { where = 1 }", "server.kv_carryover.where: unknown key"),
        ("server.kv_carryover = true", "server.kv_carryover: expected a table, or false, got true"),
        ("model.headroom = -1", 'models[1] "m".headroom: expected a share such as 0.1'),
        ("model.image_tokens = 0", 'models[1] "m".image_tokens: expected a positive integer'),
        ("model.kv_conversations = 1.5", 'models[1] "m".kv_conversations: expected an integer'),
        ("model.clamp_answer = 1", 'models[1] "m".clamp_answer: expected true or false'),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, line: str, mistake: str) -> None:
    (found,) = mistakes(tmp_path, line)
    assert found.startswith(mistake)


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    (line,) = [row for row in text.splitlines() if row.startswith("server.kv_carryover = ")]
    carryover = smallest(tmp_path, line).server.kv_carryover
    assert carryover is not None
    assert carryover.persist


TWO_KEYS = 'server.api_keys = { "sk-0123456789", "sk-9876543210" }'


@pytest.mark.parametrize(
    ("lines", "apart"),
    [
        ("", False),
        ('server.api_keys = { "sk-0123456789" }', False),
        ('server.api_keys = { "sk-0123456789", "sk-9876543210" }', True),
        (
            'server.api_keys = { "sk-0123456789", "sk-9876543210" } server.share_prefixes = true',
            False,
        ),
    ],
)
def test_several_keys_are_kept_apart_unless_they_share(
    tmp_path: Path, lines: str, apart: bool
) -> None:
    assert smallest(tmp_path, lines).server.keeps_owners_apart is apart


@pytest.mark.parametrize(("given", "expected"), [("90", 90), ('"2m"', 120), ("0", math.inf)])
def test_a_model_says_how_long_an_answer_may_take_while_others_wait(
    given: str, expected: float, tmp_path: Path
) -> None:
    assert smallest(tmp_path, "").models[0].longest_answer_s is None
    config = smallest(tmp_path, f"model.longest_answer = {given}")
    assert config.models[0].longest_answer_s == expected
