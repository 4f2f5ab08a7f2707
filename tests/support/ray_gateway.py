"""A gateway with its engines on a Ray cluster, for the tests of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.support.harness import GatewayProcess, chat_body, running_gateway
from tests.support.ray_nodes import ADDRESS, START_S

TINY = "resources = { CPU = 0.4 }"
ON_WORKER = "resources = { CPU = 0.4, far = 1 }"
OTHERS = {
    "name": "others", "route_prefix": "/others",
    "import_path": "trio_gateway.cluster.replica:build",
    "args": {"command": ["python3", "-m", "http.server", "${PORT}"]},
    "deployments": [{"name": "engine", "ray_actor_options": {"num_cpus": 0}}],
}  # fmt: skip


def model(name: str, *variants: str, address: str = ADDRESS, more: str = "") -> str:
    of_all = f'name = "{name}", engine = presets.engines.ray, address = "{address}" {more}'
    return f"{{ {of_all}, variants = {{ {', '.join(variants)} }} }}"


def variant(context: int, more: str = TINY, gguf: str = "") -> str:
    """Two slots of this context, and one thread: several wait for each other actively."""
    file = f'"{gguf}"' if gguf else "presets.models.smollm2"
    args = f'"-m", {file}, "-c", "{2 * context}", "-np", "2", "--threads", "1"'
    command = f'binary = "trio-gateway-llama-server", args = {{ {args} }}'
    return f"{{ {command}, context = {context}, {more} }}"


def gateway(
    tmp_path: Path, *models: str, pools: str = "", more: str = "", **how: Any
) -> AbstractContextManager[GatewayProcess]:
    config = (
        f'server = {{ listen_v4 = "127.0.0.1:0", engine_startup_timeout = {START_S:g} {more} }}\n'
        f"models = {{ {', '.join(models)} }}\npools = {{ {pools} }}\n"
    )
    return running_gateway(tmp_path, config, **how)


def said(running: GatewayProcess, name: str, **fields: Any) -> tuple[int, str]:
    """The status of a chat, and the text of its answer or of the error."""
    with running.client(START_S) as client:
        answer = client.post("/v1/chat/completions", json=chat_body(name, **fields))
    if answer.status_code != 200:
        return answer.status_code, str(answer.json()["error"]["message"])
    return 200, str(answer.json()["choices"][0]["message"]["content"])
