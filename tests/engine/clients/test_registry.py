"""The registry of engine types: one line and one class for each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.fakes import config, model
from tests.support.openai_site import Site, running
from trio_gateway.config import presets
from trio_gateway.config.engine_types import ENDPOINTS, ENGINE_TYPES, EngineType, Option
from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.openai import OpenAIKind
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.api import endpoints as routes


@pytest.mark.parametrize("known", ENGINE_TYPES.values(), ids=lambda known: known.value)
def test_each_type_has_a_preset_and_a_class_that_is_complete(known: EngineType) -> None:
    assert presets.preset("engines", known.preset) == known.value
    kind = kind_of(known)
    assert isinstance(kind, EngineKind)
    assert kind.endpoints <= ENDPOINTS


class PingKind(OpenAIKind):
    """As little as a type may be."""

    endpoints = frozenset({"embeddings"})


def test_a_type_is_one_class_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ping = EngineType(value="ping", preset="ping", kind=f"{__name__}:PingKind")
    monkeypatch.setitem(ENGINE_TYPES, "ping", ping)
    assert isinstance(kind_of(ping), PingKind)
    manager = EngineManager(config(model("m", engine=ping)))
    assert manager.overview.endpoints_of(model("m", engine=ping)) == {"embeddings"}


def test_a_model_may_say_what_its_engines_serve() -> None:
    own = frozenset({"audio/speech"})
    manager = EngineManager(config(model("m", endpoints=own)))
    assert manager.overview.endpoints_of(model("m", endpoints=own)) == own


@pytest.mark.processes
def test_the_configuration_knows_no_engine() -> None:
    code = (
        "import sys, trio_gateway.config.config_loader\n"
        "assert not [m for m in sys.modules if m.startswith('trio_gateway.engine')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_configuration_may_name_whatever_is_routed_to_engines() -> None:
    others = (routes.Family.GATEWAY, routes.Family.OLLAMA)
    routed = {row.name for row in routes.ENDPOINTS if row.needs_engine and row.family not in others}
    assert routed <= ENDPOINTS


# -- docs/engines.md --------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "engines.md").read_text()


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def test_the_type_on_the_page_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, line = python_blocks()
    (tmp_path / "tei.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    known: EngineType = eval(line, {"EngineType": EngineType, "Option": Option})
    known = msgspec.structs.replace(known, kind="tei:TeiKind")
    monkeypatch.setitem(ENGINE_TYPES, known.value, known)
    info = {"max_input_length": 512, "max_concurrent_requests": 7}
    async with running(Site(answers={"/info": (200, info)})) as site:
        kind = kind_of(known)
        client = kind.client(site.url, EngineOptions())
        assert (await client.check_health(2.0)).ok
        assert await client.read_facts(2.0) == EngineFacts(places=7, context=512)
        assert kind.endpoints == {"embeddings"}
        await client.aclose()
