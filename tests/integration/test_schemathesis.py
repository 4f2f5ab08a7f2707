"""The API against its own description: schemathesis makes requests of `/openapi.json`, good and bad
ones, and holds each answer against it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import configuration, fake_model, running_gateway, untraced
from trio_gateway.server.api.endpoints import ENDPOINTS

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_hooks.py"
EXAMPLES = 4
RUN_LIMIT_S = 300
ENDLESS = ("/gateway/events", "/gateway/logs")  # what has no end, or need not have one
# The same route twice, handled and described alike.
TWINS = tuple(p for row in ENDPOINTS for p in row.paths if f"/v1{p}" in row.paths)
ANSWER_LIMIT_S = 30  # what takes longer counts as a fault
CHECKS = """
[checks]
enabled = false
not_a_server_error.enabled = true
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
negative_data_rejection.enabled = true
unsupported_method.enabled = true
allow_header_conformance.enabled = true

# A GET there is of a model whose name ends so: names may have slashes.
[[operations]]
include-path-regex = "^/gateway/models/.*/(load|unload|pin)$"
checks.allow_header_conformance.enabled = false

# These say 501 and what else to use, whatever is asked.
[[operations]]
include-path-regex = "^/api/(pull|push|create|copy|delete|blobs)"
checks.not_a_server_error.enabled = false

# 426 whatever the query is: none of these requests asks for a WebSocket.
[[operations]]
include-path-regex = "/realtime$"
checks.negative_data_rejection.enabled = false
"""


@pytest.mark.timeout(RUN_LIMIT_S + 40)  # the gateway starts and stops besides
def test_every_answer_is_as_described(tmp_path: Path) -> None:
    config = configuration(fake_model("fast", "--interval-s", "0"))
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    with running_gateway(tmp_path, config, verbose=False) as gateway:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", "--no-color"),
            f"{gateway.base_url}/openapi.json",
            *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
            *("--request-timeout", str(ANSWER_LIMIT_S), "--continue-on-failure", "--no-shrink"),
            *("--generation-database", "none", "--seed", "1", "--warnings", "off"),
            *(word for path in (*ENDLESS, *TWINS) for word in ("--exclude-path", path)),
            # One worker: in two threads Python 3.11's own parser, which it uses, can fail with
            # "AST constructor recursion depth mismatch".
            *("--suppress-health-check", "all", "--workers", "1"),
        ]
        hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "GATEWAY_TEST_MODEL": "fast"}
        paths = [str(HOOKS.parent), os.environ.get("PYTHONPATH", "")]
        run = subprocess.run(
            command,
            cwd=tmp_path,
            env={**untraced(), **hooks, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
        rows = sum(len(row.paths) * len(row.methods) for row in ENDPOINTS)
        # It leaves out the document itself.
        assert f"Tested: {rows - 1 - len(ENDLESS) - len(TWINS)}\n" in run.stdout, run.stdout[-5000:]
        assert gateway.chat("fast").status_code == 200
        assert "a bug in the gateway" not in gateway.log
