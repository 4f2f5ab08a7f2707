"""The registry of engine types: one line and one class for each."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from tests.support.fakes import FakeEngines, FakeProcess
from tests.support.openai_site import Site, running
from tests.support.schema_values import config, model
from tests.support.sockets import serving
from tests.support.stack import Stack
from trio_gateway.config import engine_types
from trio_gateway.config.engine_types import ENDPOINT_NAMES, ENGINE_TYPES, EngineType
from trio_gateway.config.loader import ConfigLoader
from trio_gateway.config.lua import presets
from trio_gateway.config.schema import EngineOptions, GatewayConfig
from trio_gateway.engine import clients
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.openai import OpenAIKind
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.api import endpoints as routes
from trio_gateway.server.api.endpoint import Family


@pytest.mark.parametrize("known", ENGINE_TYPES.values(), ids=lambda known: known.value)
def test_each_type_has_a_preset_and_a_class_that_is_complete(known: EngineType) -> None:
    assert presets.preset("engines", known.preset) == known.value
    kind = kind_of(known)
    assert isinstance(kind, EngineKind)
    assert kind.endpoints <= ENDPOINT_NAMES


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
        "import sys, trio_gateway.config.loader\n"
        "assert not [m for m in sys.modules if m.startswith('trio_gateway.engine')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_configuration_may_name_whatever_is_routed_to_engines() -> None:
    others = (Family.GATEWAY, Family.OLLAMA)
    routed = {row.name for row in routes.ENDPOINTS if row.needs_engine and row.family not in others}
    assert routed <= ENDPOINT_NAMES


# -- docs/engines.md --------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "engines.md").read_text()


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


class SiteEngines(FakeEngines):
    """Engines that are a site each, on the port that their arguments name."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    @asynccontextmanager
    async def launch(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[FakeProcess]:
        self.argv = argv
        async with serving(self.site, port=int(argv[-1])):
            yield FakeProcess(self, 1)

    def manager(self, given: GatewayConfig) -> EngineManager:
        return EngineManager(given, launch=self.launch)


@pytest.fixture
def tei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's recipe, followed to the letter, but for where the file is written."""
    source, entry = python_blocks()
    path = re.search(r"`trio_gateway/engine/clients/(\w+\.py)`", PAGE)
    assert path is not None
    (tmp_path / path[1]).write_text(source)
    monkeypatch.setattr(clients, "__path__", [*clients.__path__, str(tmp_path)])
    (known,) = eval(f"({entry})", vars(engine_types))
    monkeypatch.setitem(ENGINE_TYPES, known.value, known)
    # Made of the registry when its module was imported.
    more = {**presets._PRESETS["engines"], known.preset: lambda: str(known.value)}
    monkeypatch.setattr(presets, "_PRESETS", {**presets._PRESETS, "engines": more})
    yield
    sys.modules.pop("trio_gateway.engine.clients.tei", None)


INFO = (200, {"max_input_length": 512, "max_concurrent_requests": 7})


async def test_the_type_on_the_page_asks_for_its_limits(tei: None) -> None:
    kind = kind_of(ENGINE_TYPES["tei"])
    assert kind.endpoints == {"embeddings"}
    async with running(Site(answers={"/info": INFO})) as site:
        client = kind.client(site.url, EngineOptions())
        assert (await client.check_health(2.0)).ok
        assert await client.read_facts(2.0) == EngineFacts(slots=7, context=512)
        await client.aclose()


async def test_the_type_on_the_page_serves_a_request(tei: None, tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(
        """
        server = {}
        models = {
          {
            name = "bge",
            engine = presets.engines.tei,
            served_name = "BAAI/bge-small",
            variants = { { binary = "tei", args = { "--port", "${PORT}" }, context = 512 } },
          },
        }
        """
    )
    given = ConfigLoader(path).load()
    vectors = {"data": [{"embedding": [0.5], "index": 0}]}
    site = Site(answers={"/info": INFO, "/v1/embeddings": (200, vectors)})
    engines = SiteEngines(site)
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, engines, given)
        await nursery.start(stack.gateway.run)
        body = msgspec.json.encode({"model": "bge", "input": "one two"})
        with trio.fail_after(10):
            answer = await stack.post("/v1/embeddings", body, {"Host": "localhost"})
            refused = await stack.post("/v1/completions", body, {"Host": "localhost"})
        assert (answer.status, msgspec.json.decode(answer.content)["data"]) == (
            200,
            vectors["data"],
        )
        assert refused.status == 400
        (engine,) = stack.manager.engines.values()
        assert engine.info is not None
        assert (engine.info.slots, engine.info.context) == (7, 512)
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")
    assert engines.argv[:2] == ["tei", "--port"]
    (sent,) = site.bodies["/v1/embeddings"]
    assert msgspec.json.decode(sent)["model"] == "BAAI/bge-small"
