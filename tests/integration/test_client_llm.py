"""The `llm` command against the gateway, with a user folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import GatewayProcess, untraced
from tests.support.optional import client_package_there

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

QUESTION = "Name the capital city of France."
LIMIT_S = 30.0
MODELS = """\
- model_id: gateway
  model_name: smollm2
  api_base: "{url}/v1"
- model_id: tools
  model_name: caller
  api_base: "{url}/v1"
  supports_tools: true
"""


@pytest.fixture
def llm(
    client_gateway: GatewayProcess, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command. The package of the tests' model is a plugin of it whose own needs are not
    installed, so plugins are off."""
    client_package_there("llm")
    command = shutil.which("llm")
    assert command is not None
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=client_gateway.base_url))
    environment = {
        **untraced(),
        "LLM_USER_PATH": str(tmp_path),
        "LLM_LOAD_PLUGINS": "",
        "OPENAI_API_KEY": "none",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run


def test_a_prompt_is_answered(llm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    whole = llm("-m", "gateway", "--no-stream", "-o", "temperature", "0", QUESTION)
    assert "Paris" in whole.stdout, whole.stderr
    streamed = llm("-m", "gateway", "-o", "temperature", "0", "-o", "max_tokens", "16", QUESTION)
    assert "Paris" in streamed.stdout, streamed.stderr


def test_a_conversation_goes_on(llm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert llm("-m", "gateway", "-o", "max_tokens", "16", QUESTION).returncode == 0
    again = llm("-c", "-o", "max_tokens", "16", "Say that again.")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip()


def test_an_error_says_what_is_wrong(
    llm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused = llm("-m", "gateway", "word " * 5000)
    assert refused.returncode != 0
    assert "2048" in refused.stderr
