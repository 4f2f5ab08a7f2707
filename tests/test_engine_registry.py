"""The registry of engine types: one line and one class for each."""

from __future__ import annotations

import inspect

import pytest

from tests.fakes import config, model
from trio_gateway.config import presets
from trio_gateway.config.engine_types import ENDPOINTS, ENGINE_TYPES, EngineType
from trio_gateway.engine.engine_client import EngineClient, EngineFacts, Health
from trio_gateway.engine.engine_manager import EngineManager
from trio_gateway.engine.engine_registry import client_type_of
from trio_gateway.engine.openai_engine import OpenAIEngine


@pytest.mark.parametrize("known", ENGINE_TYPES.values(), ids=lambda known: known.value)
def test_each_type_has_a_preset_and_a_class_that_is_complete(known: EngineType) -> None:
    assert presets.preset("engines", known.preset) == known.value
    client_type = client_type_of(known)
    assert issubclass(client_type, EngineClient)
    assert not inspect.isabstract(client_type)
    assert client_type.get_supported_endpoints() <= ENDPOINTS


class PingEngine(OpenAIEngine):
    """The example of docs/engines.md."""

    @staticmethod
    def get_supported_endpoints() -> frozenset[str]:
        return frozenset({"embeddings"})

    async def check_health(self, timeout_s: float) -> Health:
        return Health(True, "always")

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        return EngineFacts(places=3)


def test_a_type_is_one_class_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ping = EngineType(value="ping", preset="ping", client=f"{__name__}:PingEngine")
    monkeypatch.setitem(ENGINE_TYPES, "ping", ping)
    assert client_type_of(ping).__name__ == "PingEngine"
    manager = EngineManager(config(model("m", engine=ping)))
    assert manager.endpoints_of(model("m", engine=ping)) == {"embeddings"}


def test_a_model_may_say_what_its_engines_serve() -> None:
    own = frozenset({"audio/speech"})
    manager = EngineManager(config(model("m", endpoints=own)))
    assert manager.endpoints_of(model("m", endpoints=own)) == own


def test_the_configuration_knows_no_engine() -> None:
    assert all(isinstance(t.client, str) for t in ENGINE_TYPES.values())
