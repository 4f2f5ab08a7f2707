"""The embedded llama-server's command line, with the real xllamacpp and no model loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from click.testing import CliRunner

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.lua.presets import preset
from trio_gateway.config.template_choice import template_choice
from trio_gateway.engine.clients import embedded_server


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """The program is run in this process, and makes it an engine's: other tests come after it."""
    umask, on_interrupt = os.umask(0o022), signal.getsignal(signal.SIGINT)
    os.umask(umask)
    yield
    os.umask(umask)
    signal.signal(signal.SIGINT, on_interrupt)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parameters that a server would have been started with."""
    started: list[Any] = []

    def refuse(params: Any) -> None:
        started.append(params)
        raise RuntimeError("not in this test")

    monkeypatch.setattr(xllamacpp, "Server", refuse)
    return started


def run(*args: str) -> Any:
    return CliRunner().invoke(embedded_server.main, args)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert "pip install xllamacpp" in run("-m", "m.gguf").output


def test_a_library_that_the_package_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = "libgomp.so.1: cannot open shared object file"
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({missing!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xllamacpp")
    assert f"xllamacpp cannot be loaded: {missing}" in run("-m", "m.gguf").output


def test_llama_server_s_flags_reach_the_engine(served: list[Any]) -> None:
    result = run(
        "-m", "/models/m.gguf", "-c", "2048", "-np", "3", "--host", "127.0.0.2", "--port", "9001",
        "-t", "2", "-ngl", "0", "-b", "256", "-ub", "128", "--slot-save-path", "/var/slots",
        "--embeddings", "--pooling", "mean", "--alias", "small",
    )  # fmt: skip
    assert "not in this test" in result.output
    (params,) = served
    assert params.model.path == "/models/m.gguf"
    assert (params.n_ctx, params.n_parallel) == (2048, 3)
    hosts = params.hostnames if hasattr(params, "hostnames") else [params.hostname]  # older ones
    assert (hosts, params.port) == (["127.0.0.2"], 9001)
    assert (params.cpuparams.n_threads, params.n_gpu_layers) == (2, 0)
    assert (params.n_batch, params.n_ubatch) == (256, 128)
    assert params.slot_save_path == "/var/slots/"
    assert params.embedding
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    assert params.model_alias == {"small"}
    assert params.endpoint_slots


def test_what_decides_how_slots_are_saved_reaches_the_engine(
    served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all of llama-server's spellings, and from its variables."""
    run("-m", "m.gguf", "--ctx-checkpoints", "3", "--swa-full", "--cache-ram", "0")
    run("-m", "m.gguf", "-ctxcp", "3", "--swa_full", "-cram", "0")
    run("-m", "m.gguf", "--swa-checkpoints=3", "--swa-full", "--cache-ram=0")
    monkeypatch.setenv("LLAMA_ARG_CTX_CHECKPOINTS", "3")
    monkeypatch.setenv("LLAMA_ARG_SWA_FULL", "1")
    monkeypatch.setenv("LLAMA_ARG_CACHE_RAM", "0")
    run("-m", "m.gguf")
    assert len(served) == 4
    for params in served:
        assert (params.n_ctx_checkpoints, params.swa_full, params.cache_ram_mib) == (3, True, 0)


def test_its_variables_are_those_of_llama_server(
    served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "MODEL": "m.gguf", "CTX_SIZE": "512", "N_PARALLEL": "2", "KV_UNIFIED": "on", "BATCH": "64",
        "UBATCH": "32", "RERANKING": "1", "PORT": "9002", "API_PREFIX": "/llm", "MMPROJ": "p.gguf",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"LLAMA_ARG_{name}", value)
    run("-c", "1024")
    monkeypatch.setenv("LLAMA_ARG_NO_KV_UNIFIED", "")
    run()
    run("-kvu", "--no-kv_unified", "--kv-unified")
    of_both, without_kvu, last = served
    for params in (of_both, without_kvu):
        assert (params.model.path, params.n_parallel, params.port) == ("m.gguf", 2, 9002)
        assert (params.n_batch, params.n_ubatch, params.embedding) == (64, 32, True)
        assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        assert (params.api_prefix, params.mmproj.path) == ("/llm", "p.gguf")
    assert (of_both.n_ctx, without_kvu.n_ctx) == (1024, 512)
    assert (of_both.kv_unified, without_kvu.kv_unified, last.kv_unified) == (True, False, True)


def test_a_chat_template_comes_as_text_or_from_a_file(served: list[Any], tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    run("-m", "m", "--chat_template_file", str(tmp_path / "t.jinja"))
    run("-m", "m", "--chat-template", "chatml")
    assert [params.chat_template for params in served] == ["{{ messages }}", "chatml"]


@pytest.mark.parametrize(
    ("variables", "args", "expected"),
    [
        ((), ("--chat-template", "chatml", "--chat-template-file", "FILE"), "a file"),
        ((), ("--chat-template-file", "FILE", "--chat-template", "chatml"), "chatml"),
        (("CHAT_TEMPLATE_FILE",), ("--chat-template", "chatml"), "chatml"),
        (("CHAT_TEMPLATE",), ("--chat-template-file", "FILE"), "a file"),
        (("CHAT_TEMPLATE", "CHAT_TEMPLATE_FILE"), (), "a file"),
        (("CHAT_TEMPLATE",), (), "FILE"),
        ((), (), ""),
    ],
)
def test_of_several_templates_the_one_that_llama_server_takes_is_used(
    served: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: tuple[str, ...],
    args: tuple[str, ...],
    expected: str,
) -> None:
    (tmp_path / "FILE").write_text("a file")
    monkeypatch.chdir(tmp_path)
    for name in variables:
        monkeypatch.setenv(f"LLAMA_ARG_{name}", "FILE")
    run("-m", "m", *args)
    assert served[0].chat_template == expected
    # And that is the one that capabilities are read off.
    given = EngineArgs(args, {f"LLAMA_ARG_{name}": "FILE" for name in variables})
    choice = template_choice(given)
    chosen = "a file" if choice.file is not None else choice.text or ""
    assert chosen == expected


def test_jinja_can_be_switched_off(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run("-m", "m")
    run("-m", "m", "--no-jinja")
    run("-m", "m", "--no-jinja", "--jinja")
    monkeypatch.setenv("LLAMA_ARG_JINJA", "0")
    run("-m", "m")
    assert [params.use_jinja for params in served] == [True, False, True, False]


def test_by_default_the_engine_s_own_defaults_hold(served: list[Any]) -> None:
    run("-m", "m.gguf")
    own, (params,) = xllamacpp.CommonParams(), served
    assert params.n_ctx_checkpoints == own.n_ctx_checkpoints
    assert params.cache_ram_mib == own.cache_ram_mib
    assert not params.swa_full
    assert not params.embedding
    assert (params.n_ctx, params.port) == (0, 8080)
    assert params.kv_unified == own.kv_unified
    assert (params.hostnames if hasattr(params, "hostnames") else [params.hostname]) == [
        "127.0.0.1"
    ]


def test_older_bindings_have_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        """As of June to September 2026."""

        hostname = "127.0.0.1"

        def __init__(self) -> None:
            self.model = self.cpuparams = self.mmproj = self

    params = Older()
    given: dict[str, Any] = {p.name: None for p in embedded_server.main.params if p.name}
    embedded_server._apply(params, xllamacpp, {**given, "model": "m", "host": "::1", "port": 1})
    assert params.hostname == "::1"
    assert not hasattr(params, "hostnames")


def test_keys_come_from_the_environment_from_arguments_and_from_a_file(
    served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("c\n\nd\n")
    run("-m", "m", "--api-key", "a, b", "--api-key-file", str(tmp_path / "keys"))
    monkeypatch.setenv("LLAMA_API_KEY", "of-the-gateway")
    run("-m", "m")
    monkeypatch.delenv("LLAMA_API_KEY")
    run("-m", "m")
    assert [params.api_keys for params in served] == [["a", "b", "c", "d"], ["of-the-gateway"], []]


@pytest.mark.parametrize("flag", ["--flash-attn", "--nope", "-zz"])
def test_an_unknown_flag_is_an_error_that_names_it(served: list[Any], flag: str) -> None:
    result = run("-m", "m.gguf", flag)
    assert result.exit_code == 2
    assert flag[:2] in result.output
    assert "No such option" in result.output
    assert not served


def test_a_model_that_cannot_be_served_exits_with_1(served: list[Any]) -> None:
    result = run("-m", "m.gguf")
    assert result.exit_code == 1
    assert "the model could not be served" in result.output


@pytest.mark.processes
def test_an_end_that_hangs_with_the_interpreter_held_is_cut_short() -> None:
    program = (
        "import ctypes; from trio_gateway.engine.clients import embedded_server as e; "
        "e._end_within(0.2); "
        "ctypes.PyDLL(None).sleep(60)"  # as xllamacpp's destructor: no other thread runs meanwhile
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.processes
def test_an_engine_that_is_ended_as_soon_as_it_serves_ends() -> None:
    command = [preset("binaries", "embedded"), "-m", preset("models", "smollm2"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("serving" in line for line in process.stderr)
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM, -signal.SIGALRM)
