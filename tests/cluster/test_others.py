"""Other servers than llama-server on a real Ray cluster, and other ways to it."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support import vllm_like
from tests.support.harness import (
    HYPERCORN,
    GatewayProcess,
    chat_body,
    lua_string,
    running_gateway,
)
from tests.support.llm_app import MODEL
from tests.support.ray_gateway import TINY, gateway, model, said, variant
from tests.support.ray_nodes import HEAD, START_S, Nodes, becomes
from tests.support.tls_files import write_certificate
from tests.support.tls_front import tls_front

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def streams_and_is_left(running: GatewayProcess, name: str, left: Path) -> None:
    """A whole stream, and one that its client leaves in the middle, of which the server knows."""
    whole = chat_body(name, stream=True, max_tokens=5)
    with running.client(START_S) as client:
        text = client.post("/v1/chat/completions", json=whole).text
    assert text.count("tok ") == 5
    assert text.rstrip().endswith("data: [DONE]")
    long = chat_body(name, stream=True, max_tokens=3000)
    with (
        running.client(START_S) as client,
        client.stream("POST", "/v1/chat/completions", json=long) as answer,
    ):
        assert b"tok " in next(answer.iter_bytes())
        assert not left.exists()
    assert becomes(left.exists, 10.0)


def test_a_command_like_vllms(tmp_path: Path, nodes: Nodes) -> None:
    left, program = tmp_path / "left", tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {vllm_like.__file__} "$@"\n')
    program.chmod(0o755)
    args = '"serve", "Qwen/Qwen3", "--port", "${PORT}", "--max-model-len", "8192"'
    vllm = (
        f"{{ binary = {lua_string(str(program))}, args = {{ {args} }}, context = 8192, "
        f"parallel = 4, env = {{ LEFT = {lua_string(str(left))} }}, {TINY} }}"
    )
    with gateway(tmp_path, model("qwen", vllm)) as running:
        assert said(running, "qwen") == (200, "from Qwen/Qwen3")
        streams_and_is_left(running, "qwen", left)
        running.wait_for_line("qwen:8192: ready .*")
        assert "8192" in running.wait_for_line("qwen:8192: ready .*")[0]


def test_an_application_of_somebody_elses(tmp_path: Path, nodes: Nodes) -> None:
    left = tmp_path / "left"
    nodes.put(
        {
            "name": "llm", "route_prefix": "/llm", "import_path": "tests.support.llm_app:build",
            "args": {"left": str(left)},
        }
    )  # fmt: skip
    assert becomes(lambda: bool(nodes.replicas("llm")))
    remote = (
        f'{{ name = "{MODEL}", engine = presets.engines.remote, '
        f'urls = "http://{HEAD}:8000/llm/v1", variants = {{ {{ context = 4096 }} }} }}'
    )
    with gateway(tmp_path, remote, pools="") as running:
        assert said(running, MODEL) == (200, f"from {MODEL}")
        streams_and_is_left(running, MODEL, left)
    assert len(nodes.replicas("llm")) == 1
    nodes.put()


def test_behind_a_proxy_with_a_token_and_tls(tmp_path: Path, nodes: Nodes) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = write_certificate(ca, tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    with (
        tls_front(tls, "s3cret", (HEAD, 8265)) as dashboard,
        tls_front(tls, "s3cret", (HEAD, 8000)) as serve,
    ):

        def behind(name: str, token: str, trusted: bool = True) -> str:
            more = f', serve_url = "{serve.url}", headers = {{ Authorization = "{token}" }}'
            if trusted:
                more += f", ca_file = {lua_string(str(tmp_path / 'ca.pem'))}"
            return model(name, variant(1024), address=dashboard.url, more=more)

        models = (
            behind("good", "Bearer s3cret"),
            behind("wrong", "Bearer no"),
            behind("untrusted", "Bearer s3cret", trusted=False),
        )
        with gateway(tmp_path, *models) as running:
            assert said(running, "good")[0] == 200
            assert dashboard.passed
            assert serve.passed
            status, why = said(running, "wrong")
            assert status == 502
            assert "HTTP 401; see `headers`" in why
            status, why = said(running, "untrusted")
            assert status == 503
            assert "certificate" in why.lower()
            assert "s3cret" not in running.log


def test_under_hypercorn(tmp_path: Path, nodes: Nodes) -> None:
    config = f"server = {{ engine_startup_timeout = {START_S:g} }}\nmodels = {{ "
    under = (*HYPERCORN, "-k", "trio", "-b", "127.0.0.1:0", "trio_gateway.app:app")
    ready = r"Running on (\S+)"
    one = config + model("m", variant(1024)) + " }"
    with running_gateway(tmp_path, one, command=under, ready=ready) as running:
        assert said(running, "m")[0] == 200
        assert len(nodes.replicas("-m-")) == 1
    assert "stays on the cluster" not in running.log


def test_rays_own_token(tmp_path: Path, machines: Nodes) -> None:
    token = "0123456789abcdef0123456789abcdef"
    machines.ensure(token=token)

    def having(name: str, its: str) -> str:
        more = f', headers = {{ Authorization = "Bearer {its}" }}'
        return model(name, variant(1024), more=more)

    with gateway(tmp_path, having("good", token), having("wrong", token[::-1])) as running:
        assert said(running, "good")[0] == 200
        status, why = said(running, "wrong")
        assert status == 502
        assert "see `headers`" in why
        assert token not in running.log
        # Serve's own port asks for nothing, as the page says.
        assert httpx.get(f"http://{HEAD}:8000/-/healthz", trust_env=False).status_code == 200
