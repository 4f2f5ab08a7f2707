"""What docs/configuration.md and docs/security.md quote is what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_gateway.commands.root import root
from trio_gateway.config.loader import ConfigError, ConfigLoader

DOCS = Path(__file__).parents[2] / "docs"
LLAMA_SERVER = Path("/opt/llama.cpp/bin/llama-server")

TABLES = """
server = { listen_v4 = "127.0.0.1", engine_idle_timout = 5 }
models = {
  {
    name = "small",
    engine = presets.engines.llamacpp,
    variants = { { binary = "llama-server", context = 4096, args = { "-m", "m", "-c", 4096 } } },
  },
  {
    name = "qwen3",
    engine = presets.engines.llamacpp,
    pool = "gpu",
    variants = { { binary = "llama-server", context = "32k", args = {} } },
  },
}
"""
OPEN = """
server = { listen_v4 = "0.0.0.0:7777" }
models = {
  {
    name = "m",
    engine = presets.engines.llamacpp,
    variants = { { binary = "llama-server", context = 4096, args = {} } },
  },
}
"""
# Each goes wrong in its third line.
PROGRAMS = [
    'server = {\n  listen_v4 = "127.0.0.1:7777"\n  queue_limit = 10\n}',
    "\n\nlocal engine = preset.engines",
    "\n\nlocal engine = presets.engines.llama",
    '\n\nlocal folder = env("LLAMA_CPP")',
    "\n\nlocal all = concat_arrays({ 1, undefined, 3 }, {})",
    '\n\ninclude("models.lua")',
    "\n\nwhile true do end",
]


@pytest.mark.parametrize(
    ("page", "source", "written_as"),
    [("configuration.md", source, "config/gateway.lua") for source in [TABLES, *PROGRAMS]]
    + [("security.md", OPEN, "gateway.lua")],
)
def test_errors_are_quoted_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, source: str, written_as: str
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.chdir(tmp_path)
    path = Path(written_as)
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        ConfigLoader(path).load()
    quoted = (DOCS / page).read_text(encoding="utf-8")
    for mistake in caught.value.mistakes:
        assert f"\n{mistake}\n" in quoted


@pytest.mark.skipif(LLAMA_SERVER.exists(), reason="the page is about a machine without it")
def test_what_check_prints_of_the_worked_example_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    example = page.partition("\n## A worked example\n")[2]
    _, program, _, output, *_ = example.split("```")
    Path("gateway.lua").write_text(program.removeprefix("lua\n"), encoding="utf-8")
    Path("gateway.lua").chmod(0o600)  # it has a key
    printed = CliRunner().invoke(root, ["check", "-c", "gateway.lua"]).output
    assert [line.rstrip() for line in printed.splitlines()] == output.strip().splitlines()
