"""What is measured holds for what decides it, and for nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, VariantConfig
from trio_gateway.engine.ledger.identity import identity_of

SECRET = {"HF_TOKEN"}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    args = ("-m", "m-00001-of-00002.gguf", "--mmproj", "mmproj.gguf", "-c", "4096")
    return {"binary": str(program), "args": args, "workdir": tmp_path, "env": {"A": "1"}}


def identity(given: dict[str, Any], **changed: Any) -> str:
    return identity_of(model("m"), variant(**{**given, **changed}), SECRET)


@pytest.mark.parametrize("name", ["m-00002-of-00002.gguf", "mmproj.gguf", "llama-server"])
def test_each_file_counts(given: dict[str, Any], tmp_path: Path, name: str) -> None:
    before = identity(given)
    assert identity(given) == before
    os.utime(tmp_path / name, (1, 1))
    assert identity(given) != before


def test_what_decides(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    args = given["args"]
    found = [
        identity(given),
        identity(given, args=(*args, "-ngl", "10")),
        identity(given, env={"A": "2"}),
        identity(given, devices=2),
        identity(given, inherited_options={"LLAMA_ARG_N_GPU_LAYERS": "5"}),
        identity(given, args=("-m", "gone.gguf")),
        identity_of(model("m"), elsewhere("http://a"), SECRET),
        identity_of(model("m"), elsewhere("http://b"), SECRET),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found.append(identity(given))
    assert len({*found}) == len(found)


def test_what_does_not(given: dict[str, Any]) -> None:
    before, args = identity(given), given["args"]
    same = [
        identity(given, name="other", timeouts=EngineTimeouts(idle_s=1.0)),
        identity(given, env={"A": "1", "HF_TOKEN": "x", "LLAMA_API_KEY": "y"}),
        identity(given, args=(*args, "--api-key", "z")),
        identity(given, args=(*args, "--api-key=z")),
        identity_of(model("renamed", aliases=("m",), pinned=True), variant(**given), SECRET),
    ]
    assert {*same} == {before}


def test_files_that_cannot_be_looked_at(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "a\0b", "x" * 5000, ""):
        assert identity(given, args=("-m", name))


def elsewhere(url: str) -> VariantConfig:
    return variant(binary="", options=EngineOptions(urls=(url,)))
