"""The gateway that the tests of official clients share: one for all, as starts cost time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import (
    CLIENT_KEY,
    GatewayProcess,
    configuration,
    fake_model,
    model,
    real_variant,
    running_gateway,
)
from tests.support.tiny_model import write_tiny_model
from tests.support.tool_answers import write_answers


@pytest.fixture(scope="session")
def client_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """`smollm2` is real, `embedder` is the same model for vectors, `caller` replays tool calls.
    At the end nothing in the log may be an error: no client's request is one to the gateway."""
    folder = tmp_path_factory.mktemp("clients")
    beside = "presets.engines.llamacpp_secondary"
    replay = ("--answers", str(write_answers(folder / "answers.json")))
    config = configuration(
        model("smollm2", real_variant(2048)),
        model("embedder", real_variant(2048, "--embeddings", "--pooling", "mean"), engine=beside),
        fake_model("caller", *replay, engine=beside),
    )
    with running_gateway(folder, config) as running:
        yield running
        assert " ERROR " not in running.log, running.log


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for what an engine does, where what it says does not matter."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def keyed_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """It asks for a key, CLIENT_KEY."""
    config = configuration(fake_model("fake"), api_keys=f'{{ "{CLIENT_KEY}" }}')
    with running_gateway(tmp_path_factory.mktemp("keyed"), config) as running:
        yield running
