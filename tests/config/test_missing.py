"""What a configuration names and this machine does not have, by kind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.support.configurations import smallest
from trio_gateway.config.missing import missing

GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
HERE = "variant.binary, variant.args, variant.workdir = 'sh', {}, '.' "


def texts(folder: Path, changes: str) -> list[str]:
    return [lack.text for lack in missing(smallest(folder, HERE + changes))]


def test_a_configuration_whose_files_are_all_here_misses_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF)
    assert texts(tmp_path, "variant.args = { '-m', 'm.gguf' }") == []


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ("variant.binary = 'no-such-server'", "binary: no-such-server is not on PATH"),
        ("variant.binary = 'bin/none'", "binary: {folder}/bin/none does not exist"),
        ("variant.binary = './plain.txt'", "binary: {folder}/plain.txt is not executable"),
        ("variant.binary = './folder'", "binary: {folder}/folder is a folder"),
        ("variant.workdir = 'none'", "workdir: {folder}/none does not exist"),
        ("variant.args = { '-m', 'x.gguf' }", "its model file {folder}/x.gguf does not exist"),
        ("variant.args = { '--model=/x.gguf' }", "its model file /x.gguf does not exist"),
        ("variant.args = { '--mmproj', 'p.gguf' }", "--mmproj: {folder}/p.gguf does not exist"),
        ("variant.args = { '-md', 'd.gguf' }", "--model-draft: {folder}/d.gguf does not exist"),
        ("model.stop_command = { '/no/stop' }", "stop_command: /no/stop does not exist"),
        (
            "model.tokenization = { binary = 'no-such-tokenize' }",
            "tokenization: no-such-tokenize is not on PATH",
        ),
    ],
)
def test_what_is_missing_is_told_with_the_model(tmp_path: Path, changes: str, lack: str) -> None:
    (tmp_path / "plain.txt").touch()
    (tmp_path / "folder").mkdir()
    assert texts(tmp_path, changes) == [f'model "m": {lack.replace("{folder}", str(tmp_path))}']


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a GGUF file"),
        (b"", "is not a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian, which is not supported"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "has version 9 of the GGUF format, which is not"),
    ],
)
def test_a_model_file_that_no_engine_could_load_is_told(
    tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    (found,) = texts(tmp_path, "variant.args = { '-m', 'm.gguf' }")
    assert found.startswith(f'model "m": its model file {tmp_path}/m.gguf {why}')


def test_each_part_of_a_model_in_several_files_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(GGUF)
    assert texts(tmp_path, "variant.args = { '-m', 'm-00001-of-00002.gguf' }") == [
        f'model "m": its model file {tmp_path}/m-00002-of-00002.gguf does not exist'
    ]


def test_what_several_variants_miss_is_told_once(tmp_path: Path) -> None:
    other = "merge_tables(variant, { context = 1024, binary = 'sh' })"
    found = texts(
        tmp_path,
        "variant.binary = '/none' "
        f"model.variants = {{ variant, merge_tables(variant, {{ context = 2048 }}), {other} }}",
    )
    assert found == ['model "m", variant 2048 and 4096: binary: /none does not exist']


def test_the_files_of_a_container_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    assert texts(tmp_path, "variant.binary, variant.args = './docker', { '-m', '/m.gguf' }") == []


def test_an_engine_elsewhere_misses_nothing(tmp_path: Path) -> None:
    remote = "model.engine, model.urls = presets.engines.remote, { 'https://a/v1' } "
    assert texts(tmp_path, remote + "model.variants = { { context = 4096 } }") == []


def test_certificates_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    found = texts(tmp_path, "server.tls = { certificate = 'c.pem', key = 'k.pem' }")
    assert found == [f"server.tls.key: {tmp_path}/k.pem does not exist"]


def test_only_a_model_that_cannot_start_is_named(tmp_path: Path) -> None:
    config = smallest(tmp_path, HERE + "model.stop_command = { '/no/stop' }")
    assert [lack.model for lack in missing(config)] == [None]
    config = smallest(tmp_path, HERE + "variant.binary = '/none'")
    assert [lack.model for lack in missing(config)] == ["m"]


def test_traces_need_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    (lack,) = texts(tmp_path, "server.traces = { endpoint = 'http://127.0.0.1:4318/v1/traces' }")
    assert lack.startswith(
        "server.traces: no traces are sent without the extra `otel`: pip install"
    )
    assert texts(tmp_path, "") == []
