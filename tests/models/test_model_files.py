"""ModelFiles: what is read of models' files, when, and what is said while a disk hangs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.support.gguf_files import write_bpe
from tests.support.schema_values import model, variant
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import ModelConfig
from trio_gateway.gguf.header import read_header
from trio_gateway.gguf.tensors import TensorTotals
from trio_gateway.models import model_files
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.models.model_files import ModelFiles


def write_part(path: Path, *rows: int, architecture: str = "llama", **values: bool) -> None:
    """Each of the rows is a tensor of so many floats."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in values.items():
        writer.add_bool(f"{architecture}.{name}", value)
    for place, count in enumerate(rows):
        writer.add_tensor(f"t{place}", np.zeros(count, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def on(folder: Path, *args: str, **fields: Any) -> ModelConfig:
    return model("m", variant(2048), variant(8192, args=args, workdir=folder, **fields))


async def facts_of(given: ModelConfig, files: ModelFiles | None = None) -> ModelFacts:
    (facts,) = await (files or ModelFiles()).facts_of([given])
    return facts


async def test_the_files_of_the_largest_variant_are_read(tmp_path: Path) -> None:
    write_bpe(tmp_path, template="own")
    write_part(tmp_path / "p.gguf", architecture="clip", has_vision_encoder=True)
    (tmp_path / "t.jinja").write_text("{{ tools }}")
    args = ("-m", "m.gguf", "--chat-template-file", "t.jinja", "--mmproj", "p.gguf")
    facts = await facts_of(on(tmp_path, *args))
    assert facts.header is not None
    assert facts.projector is not None
    assert (facts.header.chat_template, facts.template) == ("own", "{{ tools }}")
    assert facts.projector.number("has_vision_encoder") == 1
    assert facts.size_bytes == (tmp_path / "m.gguf").stat().st_size
    assert facts.modified_s == pytest.approx((tmp_path / "m.gguf").stat().st_mtime)


async def test_variables_name_files_as_well(tmp_path: Path) -> None:
    write_bpe(tmp_path)
    (tmp_path / "t.jinja").write_text("text")
    env = {"LLAMA_ARG_MODEL": "m.gguf", "LLAMA_ARG_CHAT_TEMPLATE_FILE": "t.jinja"}
    facts = await facts_of(on(tmp_path, env=env))
    assert facts.header is not None
    assert facts.template == "text"


async def test_options_of_other_engines_are_not_llama_server_s(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("text")
    given = model(
        "m",
        variant(args=("--chat-template-file", "t.jinja"), workdir=tmp_path),
        engine=ENGINE_TYPES["openai"],
    )
    assert await facts_of(given) == ModelFacts()


async def test_a_model_in_parts_is_all_of_them(tmp_path: Path) -> None:
    write_part(tmp_path / "m-00001-of-00002.gguf", 64, 32)
    write_part(tmp_path / "m-00002-of-00002.gguf", 4)
    given = on(tmp_path, "-m", "m-00001-of-00002.gguf")
    assert (await facts_of(given)).tensors == TensorTotals(100, 200)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF")
    assert (await facts_of(given)).tensors is None


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 9])
async def test_what_cannot_be_read_is_not_known(tmp_path: Path, content: bytes | None) -> None:
    args = ("-m", "m.gguf", "--mmproj", "p.gguf", "--chat-template-file", "t.jinja")
    if content is not None:
        for name in ("m.gguf", "p.gguf"):
            (tmp_path / name).write_bytes(content)
    (tmp_path / "t.jinja").mkdir()
    facts = await facts_of(on(tmp_path, *args))
    assert (facts.header, facts.tensors, facts.template, facts.projector) == (None,) * 4
    assert facts.size_bytes == len(content or b"")


async def test_a_file_is_read_again_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def reading(path: Path) -> Any:
        read.append(path.name)
        return read_header(path)

    monkeypatch.setattr(model_files, "read_header", reading)
    files, given = ModelFiles(), on(tmp_path, "-m", "m.gguf")
    assert (await facts_of(given, files)).header is None
    write_bpe(tmp_path, template="one")
    for _ in range(2):
        facts = await facts_of(given, files)
        assert facts.header is not None
        assert facts.header.chat_template == "one"
    write_bpe(tmp_path, template="two, and longer")
    await facts_of(given, files)
    assert read == ["m.gguf", "m.gguf"]
    (tmp_path / "m.gguf").unlink()
    assert (await facts_of(given, files)).header is None


async def test_a_disk_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known is said meanwhile, and no more than one thread waits for the disk."""
    write_bpe(tmp_path, template="one")
    files, given, hangs = ModelFiles(), on(tmp_path, "-m", "m.gguf"), threading.Event()
    before = await facts_of(given, files)
    entered: list[None] = []

    def hang(_: object, __: str) -> None:
        entered.append(None)
        hangs.wait(30)

    monkeypatch.setattr(model_files, "READ_LIMIT_S", 0.05)
    monkeypatch.setattr(model_files._Cache, "_stamp_of", hang)
    try:
        for _ in range(3):
            assert await facts_of(given, files) == before
        assert len(entered) == 1
    finally:
        hangs.set()
