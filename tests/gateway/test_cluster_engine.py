"""A gateway with a model on a Ray cluster that does not answer, and another model here."""

from __future__ import annotations

from pathlib import Path

import httpcore
import trio
import trio.testing

from tests.support.configurations import load
from tests.support.fake_serve import open_fake_serve
from tests.support.harness import free_port
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import GatewayConfig


def with_cluster(folder: Path, address: str) -> GatewayConfig:
    source = f"""
    server = {{ allowed_hosts = {{ "gateway" }} }}
    models = {{
      {{
        name = "here", engine = presets.engines.llamacpp,
        variants = {{ {{ binary = "llama-server", args = {{ "-m", "m.gguf" }}, context = 4096 }} }},
      }},
      {{
        name = "away", engine = presets.engines.ray, address = "{address}",
        variants = {{ {{ binary = "llama-server", args = {{ "-m", "m.gguf" }}, context = 4096 }} }},
      }},
    }}
    """
    return load(folder, source)


async def ask(stack: Stack, model: str) -> httpcore.Response:
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    return await stack.post("/v1/chat/completions", body.encode())


async def test_one_that_cannot_be_reached_says_so_and_others_go_on(tmp_path: Path) -> None:
    given = with_cluster(tmp_path, f"http://127.0.0.1:{free_port()}")
    async with running_stack(given) as stack:
        away = await ask(stack, "away")
        assert away.status == 503
        assert b"engine_unavailable" in away.content
        assert b"nothing answers" in away.content
        assert int(dict(away.headers)[b"retry-after"]) >= 1
        assert (await ask(stack, "here")).status == 200


async def test_a_silent_one_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with open_fake_serve() as serve:
        serve.silent_to = ("GET", "PUT")
        given = with_cluster(tmp_path, serve.url)
        async with running_stack(given) as stack, trio.open_nursery() as nursery:
            nursery.start_soon(ask, stack, "away")
            while not stack.manager.engines:  # noqa: ASYNC110 - nobody is told
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.05)  # it waits for an answer by now
            stack.gateway.begin_shutdown()
            with trio.fail_after(5):
                await stack.manager.stopped.wait()
