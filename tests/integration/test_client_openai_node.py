"""The npm package `openai`, under node, against the gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.harness import GatewayProcess
from tests.support.optional import NODE_TESTS, node_packages

LIMIT_S = 60.0


def test_the_openai_package_for_node(client_gateway: GatewayProcess, tmp_path: Path) -> None:
    """node finds packages from where a module lies, so the script lies beside a link to them."""
    (tmp_path / "node_modules").symlink_to(node_packages() / "node_modules")
    script = shutil.copy(NODE_TESTS / "openai_client.mjs", tmp_path)
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", script],
        env={**os.environ, "GATEWAY_URL": f"{client_gateway.base_url}/v1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout
