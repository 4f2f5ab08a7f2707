"""The table `choices`: read, checked, and what is said of those that will not work as meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import mistakes, smallest
from trio_gateway.config.choice_schema import ChoiceConfig, Member, Strategy

THREE = """
local function more(name, context, pool)
  return { name = name, engine = model.engine, pool = pool,
    variants = { { binary = "x", args = { "-m", "x" }, context = context } } }
end
model.aliases = { "a" }
models[2], models[3] = more("big:70b", 8192, "secondary"), more("n", 2048)
"""
SECRET = "tg-0123456789abcdefghijklmnopqrstuvwxyz"

WRONG: dict[str, tuple[str, list[str]]] = {
    "no table": ('choices = "m"', ['choices: expected a table, got "m"']),
    "no names": (
        'choices = { { "m" } }',
        [
            "choices: expected names as keys, got 1; "
            'write choices = { coder = { "qwen3", "gemma" } }'
        ],
    ),
    "empty": (
        "choices = { c = {} }",
        [
            'choices.c: expected names of models, as { "qwen3", "gemma", strategy = "loaded" }; '
            "it names none"
        ],
    ),
    "unknown": (
        'choices = { c = { "m", "o", "bog:70b" } }',
        [
            'choices.c[2]: no model "o"',
            'choices.c[3]: no model "bog:70b"; did you mean "big:70b"?',
        ],
    ),
    "twice": ('choices = { c = { "m", "m" } }', ['choices.c[2]: "m" is listed twice; remove one']),
    "twice by an alias": (
        'choices = { c = { "m", "a@2048" } }',
        ['choices.c[2]: "a@2048" is the same model as "m"; remove one'],
    ),
    "no such variant": (
        'choices = { c = { "m:x" } }',
        ['choices.c[1]: m has no variant "x"; it has: 4096'],
    ),
    "in each other": (
        'choices = { c = { "d" }, d = { "c" } }',
        [
            'choices.c[1]: "d" is a choice itself; name its models here',
            'choices.d[1]: "c" is a choice itself; name its models here',
        ],
    ),
    "a model's name": (
        'choices = { ["a:latest"] = { "n" } }',
        [
            'choices["a:latest"]: "a:latest" is already a name of the model "m"; '
            "rename one of the two"
        ],
    ),
    "a variant's name": (
        'choices = { ["m@2048"] = { "n" } }',
        [
            'choices["m@2048"]: "m@2048" already means a variant of "m"; '
            "give the choice another name"
        ],
    ),
    "a strategy": (
        'choices = { c = { "m", strategy = "fit", spill_after = 2 } }',
        [
            'choices.c.strategy: expected one of "loaded", "spill", "fits", got "fit"; '
            'did you mean "fits"?',
            'choices.c.spill_after: only strategy = "spill" has it',
        ],
    ),
    "a number of requests": (
        'choices = { c = { "m", strategy = "spill", spill_after = 0 } }',
        ["choices.c.spill_after: expected a positive integer, got 0"],
    ),
    "a hole": (
        'choices = { c = { "m", nil, "n" } }',
        [
            'choices.c: expected names of models, as { "qwen3", "gemma", strategy = "loaded" }, '
            "but element 2 is nil (an undefined name?)"
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_say_where_and_what_to_do(name: str, tmp_path: Path) -> None:
    edit, said = WRONG[name]
    assert mistakes(tmp_path, THREE + edit) == said


def test_all_of_it_is_read_and_keys_and_preload_may_name_it(tmp_path: Path) -> None:
    given = smallest(
        tmp_path,
        f"""{THREE}
        choices = {{
          z = {{ "m", "big:70b" }},
          c = {{ "a@2048", "big:70b:8192", strategy = "spill", spill_after = 3, hidden = true,
            description = "Writes code." }},
        }}
        server = {{ preload = {{ "z", "c@2048" }},
          api_keys = {{ {{ key = "{SECRET}", models = {{ "z:latest", "n" }} }} }} }}
        """,
    )
    assert given.choices == (
        ChoiceConfig(
            name="c",
            members=(Member("m", "m@2048"), Member("big:70b", "big:70b:8192")),
            strategy=Strategy.SPILL,
            spill_after=3,
            hidden=True,
            description="Writes code.",
        ),
        ChoiceConfig(name="z", members=(Member("m", "m"), Member("big:70b", "big:70b"))),
    )
    (key,) = given.server.access.api_keys
    assert key.models == frozenset({"m", "big:70b", "n"})
    assert given.notes == ()


def test_those_that_will_not_work_as_meant_are_remarked_on(tmp_path: Path) -> None:
    edit = 'choices = { f = { "m", "n", strategy = "fits" }, s = { "m", "n", strategy = "spill" } }'
    fits, spill = smallest(tmp_path, THREE + edit).notes
    assert fits.startswith("choices.f: n holds no more than those before it")
    assert spill.startswith("choices.s: m and n share the pool primary, which has one engine")
