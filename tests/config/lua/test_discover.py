"""`discover` in a configuration: each file of a folder is a model, and none makes it invalid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.configurations import load
from tests.support.model_files import grow, write_model
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.lua import discovering
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.finding.engines import Engine, Engines
from trio_gateway.hardware.recorded import VARIABLE

GIB = 2**30
DISCOVER = "server = {}\nmodels = discover { 'm' }\n"


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with 32 GiB of memory, no GPU, and an engine."""
    devices = [{"id": "cpu", "total_bytes": 32 * GIB, "free_bytes": 30 * GIB}]
    (tmp_path / "devices.json").write_text(json.dumps(devices))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "devices.json"))
    engines = Engines(Engine(binary="/bin/sh"))
    monkeypatch.setattr(discovering, "find_engine", lambda: engines)
    (tmp_path / "m").mkdir()


def contexts(config: GatewayConfig) -> dict[str, list[int]]:
    return {model.name: [v.context for v in model.variants] for model in config.models}


def test_a_new_file_is_a_model_and_changes_no_other(tmp_path: Path) -> None:
    grow(write_model(tmp_path / "m/Chat-Q4_0.gguf", context=40960), GIB)
    before = load(tmp_path, DISCOVER)
    assert contexts(before) == {"chat": [8192, 40960]}
    assert before.models[0].variants[0].args == (
        *("--model", str(tmp_path / "m/Chat-Q4_0.gguf"), "--ctx-size", "8192"),
        *("--parallel", "1"),
    )
    write_model(tmp_path / "m/a/vectors.gguf", "bert", extra={".pooling_type": 2})
    grow(write_model(tmp_path / "m/Chat-Q8_0.gguf", context=40960), GIB)
    after = load(tmp_path, DISCOVER)
    assert contexts(after) == {
        "chat": [8192, 40960], "chat-q8_0": [8192, 40960], "vectors": [4096],
    }  # fmt: skip
    assert after.models[0] == before.models[0]
    assert after.models[2].pool == "secondary"
    assert after.notes == ()
    assert {tmp_path / "m", tmp_path / "m/a", tmp_path / "m/Chat-Q8_0.gguf"} <= {*after.watched}


def test_a_folder_may_be_empty(tmp_path: Path) -> None:
    config = load(tmp_path, DISCOVER)
    assert config.models == ()
    assert config.notes == (f"discover: there is no model in {tmp_path}/m",)
    assert config.watched == (tmp_path / "m",)


def test_broken_files_are_notes(tmp_path: Path) -> None:
    (tmp_path / "m/x.gguf").write_text("no")
    grow(write_model(tmp_path / "m/huge.gguf"), 30 * GIB)
    write_model(tmp_path / "m/lora.gguf", extra={"general.type": "adapter"})
    config = load(tmp_path, DISCOVER)
    assert config.models == ()
    assert config.notes == (
        f"discover: {tmp_path}/m/x.gguf: broken: is not a GGUF file",
        f"discover: {tmp_path}/m/huge.gguf: no memory for it: "
        "needs 30.1 GiB, and there are 24.0 GiB",
    )


def test_thousands_of_them_are_a_few_notes(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"m/{number}.gguf").touch()
    notes = load(tmp_path, DISCOVER).notes
    assert len(notes) == 21
    assert notes[-1] == "discover: 1980 more files were left out"


def test_tables_can_be_changed_and_stand_next_to_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_model(tmp_path / f"m/{name}.gguf")
    by_hand = """{
      name = "%s", engine = presets.engines.llamacpp,
      variants = { { binary = "sh", args = { "-m", "%s" }, context = 512 } },
    }"""
    config = load(
        tmp_path,
        f"""
        server = {{}}
        local found = discover {{ "m", binary = "sh", args = {{ "--jinja" }}, memory = "2GiB" }}
        for _, model in ipairs(found) do model.hidden = true end
        models = concat_arrays(found, {{
          {by_hand % ("mine", tmp_path / "m/a.gguf")},
          {by_hand % ("b", "elsewhere.gguf")},
        }})
        """,
    )
    assert contexts(config) == {"c": [2048, 8192], "mine": [512], "b": [512]}
    assert config.models[0].hidden
    assert config.models[0].variants[0].args[-1] == "--jinja"
    assert [note for note in config.notes if note.startswith("discover")] == [
        f'discover: {tmp_path}/m/b.gguf: left out, as "b" is a name of models[5]; '
        "give it a table of its own, or rename the file"
    ]


def test_a_choice_keeps_its_name(tmp_path: Path) -> None:
    write_model(tmp_path / "m/coder.gguf")
    write_model(tmp_path / "m/b.gguf")
    config = load(tmp_path, DISCOVER + 'choices = { coder = { "b" } }')
    assert contexts(config) == {"b": [2048, 8192]}
    assert 'left out, as "coder" is a name of choices.coder' in config.notes[0]


def test_what_is_too_large_for_its_pool_is_left_out(tmp_path: Path) -> None:
    grow(write_model(tmp_path / "m/a.gguf", context=8192, width=4096), GIB)
    pools = "pools = { primary = { memory = '1200MiB' } }"
    config = load(tmp_path, DISCOVER + pools)
    assert contexts(config) == {"a": [2048]}
    assert config.notes[-1].startswith('discover: "a" with 8192 tokens: left out, as it needs 1.')
    assert load(tmp_path, DISCOVER + pools.replace("1200", "90")).models == ()


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ('discover { "gone" }', "discover: FOLDER/gone: no such folder"),
        ("discover {}", 'discover: no folder, such as discover { "/srv/models" }'),
        ("discover(nil)", "discover: expected a table, got nil"),
        ('discover { "m", nil, "n" }', "discover: element 2 is nil (an undefined name?)"),
        ("discover { 1 }", "discover, element 1: expected a string, got number"),
        (
            'discover { "m", pool = 1 }',
            'discover: unknown key "pool"; known: args, binary, memory',
        ),
        (
            'discover { "m", memory = "lots" }',
            "discover: memory: expected a size: bytes, or text such as "
            '"100MiB" or "6GiB", got "lots"',
        ),
        (r'discover { "\0" }', "discover: a text with a NUL byte in it"),
    ],
)
def test_a_call_that_means_nothing_says_why(tmp_path: Path, call: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"server = {{}} models = {call}")
    assert str(caught.value) == f"{tmp_path}/gateway.lua:1: {why}".replace("FOLDER", str(tmp_path))


def test_a_folder_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root reads everything
    with pytest.raises(ConfigError, match=r"gateway.lua:2: discover: .*/m: Permission denied"):
        load(tmp_path, DISCOVER)
