"""`trio-gateway init`: what it writes is valid, and it overwrites nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.model_files import grow, write_model
from trio_gateway.commands.root import root
from trio_gateway.config.loader import ConfigLoader
from trio_gateway.finding import engines
from trio_gateway.finding.engines import Engine, Engines
from trio_gateway.hardware.recorded import VARIABLE

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; a GPU of 24 GiB, and an engine that can use it."""
    devices = [
        {"id": "cuda:0", "name": "RTX 4090", "total_bytes": 24 * GIB, "free_bytes": 24 * GIB},
        {"id": "cpu", "name": "", "total_bytes": 64 * GIB, "free_bytes": 60 * GIB},
    ]
    (tmp_path / "devices.json").write_text(json.dumps(devices))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "devices.json"))
    with_engine(monkeypatch, Engine(binary="/bin/sh", version="6500"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def with_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine | None) -> None:
    monkeypatch.setattr(engines, "find_engine", lambda *_: Engines(engine))


def init(*args: str | Path) -> Result:
    return CliRunner().invoke(root, ["init", *map(str, args)])


def test_what_it_writes_is_valid_whatever_the_files_are_called(
    machine: Path, tmp_path: Path
) -> None:
    models = tmp_path / 'it\'s "a" [[folder]] ü\\n'
    grow(write_model(models / "Big ]] model-Q4_K_M.gguf", context=131_072), 4 * GIB)
    grow(write_model(models / 'quo"te\\\u2028.gguf'), 3 * GIB)
    grow(write_model(models / "larger.gguf"), 40 * GIB)
    write_model(models / "vectors.gguf", "bert", context=512, extra={".attention.causal": False})
    write_model(models / "-- x = os.exit().gguf", extra={"general.name": "a\nb ]] --[["})
    (models / "broken\x1b[31m.gguf").write_text("x")
    result = init(models)
    assert result.exit_code == 0, result.output
    assert "\x1b[31m" not in result.output
    config = ConfigLoader(machine / "gateway.lua").load()
    assert config.notes == ()
    assert {m.name: (m.pool, [v.context for v in m.variants]) for m in config.models} == {
        "big-model": ("primary", [8192, 32_768, 131_072]),
        "quo-te": ("primary", [2048, 8192]),
        "vectors": ("secondary", [512]),
        "x-os.exit": ("secondary", [2048, 8192]),
    }
    paths = {m.variants[0].args[1] for m in config.models}
    assert paths == {
        str(p) for p in models.iterdir() if not p.name.startswith(("larger", "broken"))
    }
    assert config.models[0].variants[0].args[-2:] == ("--gpu-layers", "999")
    written = (machine / "gateway.lua").read_text()
    assert "larger.gguf: no memory for it: needs 40.1 GiB" in written
    assert "RTX 4090, 24.0 GiB" in written
    assert CliRunner().invoke(root, ["check"]).exit_code == 0


def test_it_overwrites_nothing(machine: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "m/a.gguf")
    (machine / "gateway.lua").symlink_to("nowhere")
    result = init(tmp_path / "m")
    assert (result.exit_code, "not overwritten" in result.output) == (1, True)
    assert os.readlink(machine / "gateway.lua") == "nowhere"
    assert init(tmp_path / "m", "-o", "other.lua").exit_code == 0
    assert sorted(path.name for path in machine.iterdir()) == ["gateway.lua", "other.lua"]


def test_print_writes_nothing_and_says_only_the_configuration(
    machine: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "m/a.gguf")
    (machine / "gateway.lua").touch()
    result = init(tmp_path / "m", "--print")
    assert result.exit_code == 0
    assert result.stdout.startswith("-- Written by")
    assert "taken" in result.stderr
    (machine / "printed.lua").write_text(result.stdout)
    assert [m.name for m in ConfigLoader(machine / "printed.lua").load().models] == ["a"]


def test_a_disk_may_know_no_links(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: object, target: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    write_model(tmp_path / "m/a.gguf")
    assert init(tmp_path / "m").exit_code == 0
    assert [path.name for path in machine.iterdir()] == ["gateway.lua"]
    assert init(tmp_path / "m").exit_code == 1


def test_without_an_engine_it_says_what_to_install(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(monkeypatch, None)
    write_model(tmp_path / "m/a.gguf")
    result = init(tmp_path / "m", "--yes")
    assert result.exit_code == 1
    assert "brew install llama.cpp" in result.stderr
    assert (
        ConfigLoader(machine / "gateway.lua").load().models[0].variants[0].binary == "llama-server"
    )


def test_without_a_model_nothing_is_written(machine: Path, tmp_path: Path) -> None:
    result = init(tmp_path / "here")
    assert (result.exit_code, [*machine.iterdir()]) == (1, [])
    assert "nothing was written" in result.stderr
    result = init(tmp_path / "gone")
    assert (result.exit_code, result.stderr) == (2, f"{tmp_path}/gone: no such folder\n")


def test_without_folders_it_looks_where_programs_keep_models(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "home/.cache/llama.cpp/ggml-org_tiny-GGUF_tiny-Q8_0.gguf")
    for variable in ("XDG_CACHE_HOME", "HF_HOME", "LLAMA_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = init()
    assert "Looking in: llama.cpp" in result.stderr
    assert [m.name for m in ConfigLoader(machine / "gateway.lua").load().models] == ["tiny"]


def test_another_programs_file_is_converted_for_its_owner_alone(machine: Path) -> None:
    source = machine / "swap.yaml"
    key = "sk-0123456789abcdef"
    source.write_text(f"apiKeys: [{key}]\nmodels: {{m: {{cmd: llama-server -c 4096}}}}\n")
    result = init("--from", source)
    assert result.exit_code == 0, result.output
    assert key not in result.output
    assert "server.listen_v4" in result.stderr
    written = machine / "gateway.lua"
    assert written.stat().st_mode & 0o777 == 0o600
    assert ConfigLoader(written).load().models[0].variants[0].context == 4096
    assert init("--from", source).exit_code == 1  # never overwritten
    printed = init("--from", source, "--print")
    assert printed.stdout.startswith("-- Made from llama-swap's swap.yaml")
    assert init("--from", source, machine).exit_code == 2
    source.write_bytes(b"\xff\xfe")
    assert init("--from", source, "--print").exit_code == 2
