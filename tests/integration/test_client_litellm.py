"""`litellm` as a client of the gateway, in a process of its own: it changes much on import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.harness import GatewayProcess, untraced
from tests.support.optional import client_package_there

SCRIPT = Path(__file__).parents[1] / "support" / "litellm_client.py"
LIMIT_S = 60.0


def test_completion_streaming_embedding_and_errors(client_gateway: GatewayProcess) -> None:
    client_package_there("litellm")
    done = subprocess.run(
        [sys.executable, SCRIPT, f"{client_gateway.base_url}/v1"],
        env={**untraced(), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else fetched at the import
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all done"
