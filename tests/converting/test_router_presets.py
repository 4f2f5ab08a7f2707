"""Presets of llama.cpp's router: options by any of their names become arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import load
from trio_gateway.converting.convert import described
from trio_gateway.converting.description import NotConvertible
from trio_gateway.converting.llama_options import named
from trio_gateway.converting.written import written


@pytest.mark.parametrize(
    ("key", "value", "args"),
    [
        ("c", "4096", "--ctx-size 4096"),
        ("ctx_size", "4096", "--ctx-size 4096"),
        ("n-gpu-layers", "99", "--gpu-layers 99"),
        ("ngl", "all", "--gpu-layers all"),
        ("LLAMA_ARG_CTX_SIZE", "4096", "--ctx-size 4096"),
        ("LLAMA_ARG_NO_KV_OFFLOAD", "1", "--no-kv-offload"),
        ("LLAMA_ARG_ROPE_SCALE", "2", "--rope-scale 2"),
        ("mmap", "0", "--no-mmap"),
        ("no-mmap", "true", "--no-mmap"),
        ("no-mmap", "off", "--mmap"),
        ("nkvo", "on", "--no-kv-offload"),
        ("jinja", "true", "--jinja"),
        ("no-jinja", "true", "--no-jinja"),
        ("no-mmproj", "true", "--no-mmproj-auto"),
        ("mmproj", "/x.gguf", "--mmproj /x.gguf"),
        ("flash-attn", "on", "--flash-attn on"),
        ("embeddings", "1", "--embedding"),
        ("embeddings", "false", ""),
        ("spec-default", "1", "--spec-default"),
        ("brand-new-option", "7", "--brand-new-option 7"),
    ],
)
def test_a_key_is_an_option(key: str, value: str, args: str) -> None:
    assert " ".join(named(key).args(value)) == args


FILE = """version = 1
; for all
[*]
c = 8192
ngl = 99
np = 2

[org/Repo-GGUF:Q4_K_M]
load-on-startup = 1
stop-timeout = 30
ctx-size = 4096   ; the section's own wins
[coder]\r
model = /srv/coder.gguf
LLAMA_ARG_CTX_SIZE = 16384
kvu = on
alias = code, c1
api-key = sk-private
port = 9000
[orphan]
temp = 0.5
"""


def test_presets_become_a_configuration(tmp_path: Path) -> None:
    found = described(FILE, "presets", {}, lambda _: None)
    config = load(tmp_path, written(found, "presets", "2026-11-28"))
    first, coder = config.models
    assert (first.name, first.preload, first.variants[0].context) == (
        "org/Repo-GGUF:Q4_K_M", True, 2048,
    )  # fmt: skip
    assert first.variants[0].args == (
        "--hf-repo", "org/Repo-GGUF:Q4_K_M", "--ctx-size", "4096", "--gpu-layers", "99",
        "--parallel", "2",
    )  # fmt: skip
    assert (coder.aliases, coder.variants[0].context) == (("code", "c1"), 16_384)
    assert coder.variants[0].env == {"LLAMA_API_KEY": "sk-private"}
    assert "--port" not in coder.variants[0].args
    assert config.server.timeouts.stop_s == 30
    assert config.pools["primary"].engines == 2
    places = {remark.where for remark in found.remarks}
    assert places >= {"[orphan]", "[coder] port"}
    assert "sk-private" not in str(found.remarks)


@pytest.mark.parametrize("text", ["[a]\nno entry", "[*]\nc = 1", "[a]\ntemp = 1", "[a\nm = 1", ""])
def test_what_is_no_preset_is_refused(text: str) -> None:
    with pytest.raises(NotConvertible):
        described(text, "x.ini", {}, lambda _: None)
