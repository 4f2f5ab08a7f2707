"""Which configuration file is used, and the words that say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import embedded_config, load_config, locate_config

RIGHT = """
server = {}
models = { {
  name = "%s", engine = presets.engines.llamacpp,
  variants = { { binary = "llama-server", args = {}, context = 4096 } },
} }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIO_GATEWAY_CONFIG", raising=False)
    return tmp_path


def test_the_command_line_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_CONFIG", "variable.lua")
    (folder / "gateway.lua").touch()
    assert locate_config(Path("given.lua")) == (Path("given.lua"), "given by -c")


def test_then_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_CONFIG", "variable.lua")
    (folder / "gateway.lua").touch()
    assert locate_config(None) == (Path("variable.lua"), "given by $TRIO_GATEWAY_CONFIG")


def test_then_gateway_lua_in_the_working_folder(folder: Path) -> None:
    (folder / "gateway.lua").touch()
    assert locate_config(None) == (Path("gateway.lua"), "found in this folder")


@pytest.mark.parametrize("variable", [None, ""])
def test_then_the_embedded_one(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable is not None:
        monkeypatch.setenv("TRIO_GATEWAY_CONFIG", variable)
    path, why = locate_config(None)
    assert path == embedded_config()
    assert why == "the built-in one: no -c, no $TRIO_GATEWAY_CONFIG, no gateway.lua here"


def test_a_folder_named_gateway_lua_is_not_a_configuration(folder: Path) -> None:
    (folder / "gateway.lua").mkdir()
    assert locate_config(None)[0] == embedded_config()


def test_the_embedded_one_is_there(folder: Path) -> None:
    assert embedded_config().is_file()
    assert embedded_config().name == "embedded.lua"


def test_loading_gives_the_configuration_and_the_reason(folder: Path) -> None:
    (folder / "gateway.lua").write_text(RIGHT % "here")
    config, why = load_config(None)
    assert (config.models[0].name, why) == ("here", "found in this folder")


def test_a_file_that_was_given_and_is_missing_is_an_error_and_no_other_is_tried(
    folder: Path,
) -> None:
    (folder / "gateway.lua").write_text(RIGHT % "here")
    with pytest.raises(ConfigError) as caught:
        load_config(Path("none.lua"))
    assert caught.value.mistakes == ["none.lua: no such file (given by -c)"]


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no files for descriptors here")
def test_a_configuration_may_come_from_a_pipe(folder: Path) -> None:
    """As with `-c <(…)` of a shell."""
    reading, writing = os.pipe()
    try:
        os.write(writing, (RIGHT % "piped").encode())
        os.close(writing)
        config, _ = load_config(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
    assert config.models[0].name == "piped"


def test_a_folder_is_not_a_configuration(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\.: not a file \(given by -c\)$"):
        load_config(Path())
