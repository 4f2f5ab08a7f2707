"""The README, docs/ and their like: configurations load, keys are described, links lead somewhere.

A Lua block is a whole configuration, or its first line says where it goes, as in AROUND. A comment
that is a file's name begins another file.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.model_files import write_model
from trio_gateway.config.loader import ConfigLoader
from trio_gateway.config.lua import discovering
from trio_gateway.config.reading.fields import Record
from trio_gateway.finding.engines import Engines

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted({*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")})

VARIANT = '{ binary = "llama-server", context = 8192, args = {} }'
MODEL = f'name = "qwen3-8b", engine = presets.engines.llamacpp, variants = {{ {VARIANT} }},'
# The rest of a file around a fragment.
AROUND = {
    "in server": f"server = {{ BLOCK }} models = {{ {{ {MODEL} }} }}",
    "in models": "server = {} models = { BLOCK }",
    "in a model": f"server = {{}} models = {{ {{ {MODEL} BLOCK }} }}",
    "at the end of a file that has these models": f"""
        server, models = {{}}, {{}}
        for _, name in ipairs {{ "qwen3-coder", "gemma", "qwen3-8b", "cloud", "small", "large" }} do
          models[#models + 1] = {{ {MODEL} }}
          models[#models].name = name
        end
        BLOCK
    """,
    "at the end of the file": f"server = {{}} models = {{ {{ {MODEL} }} }} BLOCK",
}
KEYS = (
    "API_KEY",
    "BOX1_KEY",
    "BOX2_KEY",
    "BOX_KEY",
    "CLUSTER_KEY",
    "OPENAI_API_KEY",
    "TABBY_API_KEY",
)


class Block(NamedTuple):
    name: str
    text: str


def lua_blocks() -> Iterator[Block]:
    fence = re.compile(r"^```lua\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in fence.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.name}:{line}", found[1])


@pytest.mark.parametrize("block", list(lua_blocks()), ids=lambda block: block.name)
def test_each_configuration_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "a-key-that-is-long-enough")
    label = block.text.partition("\n")[0].removeprefix("-- ")
    around = AROUND.get(label, "BLOCK")
    text = around.replace("BLOCK", f"\n{block.text}\n")
    number = itertools.count(100)
    text = re.sub("scrypt:…", lambda _: f"scrypt:16384:8:1:{next(number):A>22}:{'A' * 43}", text)
    (tmp_path / "models").mkdir()
    write_model(tmp_path / "models" / "some.gguf")
    monkeypatch.setattr(discovering, "find_engine", lambda: Engines(None))
    first, *others = re.split(r"^-- (\S+\.lua)$", text, flags=re.MULTILINE)
    for name, source in zip(others[::2], others[1::2], strict=True):
        (tmp_path / name).write_text(source, encoding="utf-8")
    path = tmp_path / "gateway.lua"
    if not path.exists():
        path.write_text(first, encoding="utf-8")
    loaded = ConfigLoader(path).load()
    assert loaded.models or loaded.peers


EVERY_TABLE = """
server = {
  tls = { certificate = "cert.pem", key = "key.pem" }, listen_unix = { path = "gateway.sock" },
  api_keys = { { key = "a-key-that-is-long-enough" } }, kv_carryover = { persist = true },
  traces = { endpoint = "http://127.0.0.1:4318/v1/traces" },
}
models = {
  {
    name = "m", engine = presets.engines.llamacpp, rewrite = { set = { top_k = 1 } },
    tokenization = { binary = "llama-tokenize" },
    variants = { { binary = "llama-server", context = 8192, args = {} } },
  },
  {
    name = "r", engine = presets.engines.remote, urls = "http://127.0.0.1:8080",
    variants = { { context = 8192 } },
  },
}
pools = { primary = { engines = 2 } }
"""


def test_each_key_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = set[str]()
    read = Record.read

    def noting(self: Record, key: str, reader: Any, default: Any) -> Any:
        known.add(key)
        return read(self, key, reader, default)

    monkeypatch.setattr(Record, "read", noting)
    path = tmp_path / "gateway.lua"
    path.write_text(EVERY_TABLE, encoding="utf-8")
    ConfigLoader(path).load()
    pages = (REPOSITORY / "docs" / name for name in ("configuration.md", "security.md"))
    code = " ".join(re.findall(r"`([^`\n]+)`", " ".join(page.read_text("utf-8") for page in pages)))
    described = set(re.findall(r"\w+", code))
    assert {"listen_v4", "urls", "certificate", "max_parallel", "remove", "base_args"} <= known
    assert known - described == set()


def anchors(page: Path) -> set[str]:
    """Those that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(
    ("page", "target"), list(links()), ids=lambda value: getattr(value, "name", str(value))
)
def test_each_link_leads_to_a_file_and_a_heading(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = page if not name else (page.parent / name).resolve()
    assert path.exists()
    if anchor:
        assert anchor in anchors(path)
