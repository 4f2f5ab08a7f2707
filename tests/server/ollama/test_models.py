"""What Ollama's clients are told of models and engines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ollama import ListResponse, ProcessResponse, ShowResponse

from tests.support.gguf_files import write_bpe
from tests.support.schema_values import known_model, model, variant
from trio_gateway.config.schema import ModelConfig
from trio_gateway.gguf.header import GgufHeader, read_headers
from trio_gateway.gguf.tensors import TensorTotals
from trio_gateway.models.known_model import KnownModel
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.server.ollama.models import (
    NEVER,
    LoadedModel,
    details_of,
    digest_of,
    ps_answer,
    show_answer,
    tags_answer,
    version_answer,
)

AT = "2026-11-05T10:00:00Z"
BEGAN_S = datetime(2026, 11, 5, 10, tzinfo=UTC).timestamp()
HEADER = GgufHeader(
    architecture="qwen3",
    vocabulary=100,
    values={"context_length": 40960, "block_count": 3, "attention.head_count_kv": [0, 2]},
    general={"architecture": "qwen3", "size_label": "4B", "file_type": 15, "basename": "Qwen3"},
    chat_template="{% if tools %}{{ enable_thinking }}{% endif %}",
)
FACTS = ModelFacts(
    size_bytes=123, modified_s=0.0, header=HEADER, tensors=TensorTotals(4_000_000_000, 120)
)
UNREAD = ModelFacts()


def on(*args: str) -> ModelConfig:
    return model("m", variant(2048), variant(8192, args=args))


def on_known(*args: str) -> KnownModel:
    return known_model(on(*args), FACTS)


def test_the_list_is_what_the_client_expects() -> None:
    models = [known_model(model("org/a"), FACTS), known_model(model("b"), UNREAD)]
    listed = ListResponse.model_validate_json(json.dumps(tags_answer(models, BEGAN_S))).models
    first, second = listed
    assert (first.model, first.size) == ("org/a", 123)
    assert first.modified_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert second.modified_at == datetime(2026, 11, 5, 10, tzinfo=UTC)
    assert first.details is not None
    assert (first.details.family, first.details.parameter_size) == ("qwen3", "4B")
    assert first.details.quantization_level == "Q4_K_M"
    assert second.details is not None
    assert (second.size, second.details.families) == (0, [])
    assert first.digest != second.digest
    assert [m["name"] for m in tags_answer(models, BEGAN_S)["models"]] == ["org/a", "b"]


def test_each_says_what_the_other_lists_say() -> None:
    qwen, unread = tags_answer([on_known("-m", "x"), known_model(on())], BEGAN_S)["models"]
    assert qwen["capabilities"] == ["completion", "tools", "thinking"]
    assert (qwen["context_length"], qwen["max_model_len"]) == (8192, 8192)
    assert qwen["meta"] == {
        "n_ctx": 8192, "n_ctx_train": 40960, "n_vocab": 100, "n_params": 4_000_000_000, "size": 120,
    }  # fmt: skip
    assert qwen["status"] == {"value": "unloaded"}
    assert "capabilities" not in unread  # nobody knows
    assert unread["meta"] == {"n_ctx": 8192}


def test_a_model_is_shown_with_the_context_that_it_is_served_with() -> None:
    shown = show_answer(on_known("-m", "/secret/path/m.gguf"), 8192, BEGAN_S)
    parsed = ShowResponse.model_validate_json(json.dumps(shown))
    info = parsed.modelinfo
    assert info is not None
    assert info[f"{info['general.architecture']}.context_length"] == 8192
    assert info["general.basename"] == "m"
    assert (info["qwen3.block_count"], info["general.size_label"]) == (3, "4B")
    assert parsed.capabilities == ["completion", "tools", "thinking"]
    assert parsed.template == HEADER.chat_template
    assert parsed.parameters == "num_ctx 8192"
    assert (info["general.parameter_count"], shown["meta"]["n_ctx"]) == (4_000_000_000, 8192)
    assert "secret" not in json.dumps(shown)


def test_a_model_without_a_file_has_a_context_all_the_same() -> None:
    info = show_answer(known_model(on()), 8192, BEGAN_S)["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] == 8192


def test_engines_are_shown_with_the_end_of_their_time() -> None:
    gpu = LoadedModel(context=4096, memory_bytes=10, expires_at=AT)
    pinned = LoadedModel(context=8192, memory_bytes=None, expires_at=NEVER)
    answer = ps_answer(
        [(known_model(model("a"), FACTS), gpu), (known_model(on("-ngl", "0"), FACTS), pinned)]
    )
    first, second = ProcessResponse.model_validate_json(json.dumps(answer)).models
    assert (first.model, first.size, first.size_vram, first.context_length) == ("a", 10, 10, 4096)
    assert (second.size, second.size_vram, second.context_length) == (123, 0, 8192)
    assert second.expires_at is not None
    assert second.expires_at.year > 2300


def test_a_digest_is_the_same_until_the_configuration_changes() -> None:
    assert digest_of(on("-m", "a")) == digest_of(on("-m", "a"))
    assert len({digest_of(m) for m in (on("-m", "a"), on("-m", "b"), model("n"))}) == 3
    assert len(bytes.fromhex(digest_of(on()))) == 32


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ["completion", "tools"]),  # nothing is known: editors hide what does no tools
        (("--embeddings",), ["embedding"]),
        (("--reranking",), ["rerank"]),
        (("--mmproj", "x"), ["completion", "tools", "vision"]),
    ],
)
def test_capabilities_are_in_ollama_s_words(args: tuple[str, ...], expected: list[str]) -> None:
    assert show_answer(known_model(on(*args)), 8192, BEGAN_S)["capabilities"] == expected


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(8_030_000_000, "8.0B"), (134_515_008, "134.52M"), (3_000, "3.00K"), (0, "")],
)
def test_the_number_of_parameters_is_written_as_ollama_does(parameters: int, label: str) -> None:
    facts = ModelFacts(tensors=TensorTotals(parameters, 0))
    assert details_of(known_model(on(), facts))["parameter_size"] == label


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("qwen3-4b-q4_k_m.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-UD-IQ2_XXS-00001-of-00002.gguf", "IQ2_XXS"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("model-bf16.gguf", "BF16"),
        ("model.gguf", ""),
    ],
)
def test_the_quantization_stands_in_the_file_s_name_where_it_is_not_read(
    file: str, expected: str
) -> None:
    details = details_of(known_model(on("-m", f"/models/{file}"), UNREAD))
    assert (details["quantization_level"], details["format"]) == (expected, "gguf")


def test_editors_take_the_version_for_a_recent_one() -> None:
    answer = version_answer("0.1.0")
    assert tuple(map(int, answer["version"].split("."))) >= (0, 6, 4)
    assert answer["trio_gateway"] == "0.1.0"


@pytest.mark.processes
def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    path = write_bpe(tmp_path, template="{{ tools }}", name="Tiny")
    header = read_headers([str(path)])[str(path)]
    assert header.general["name"] == "Tiny"
    assert header.chat_template == "{{ tools }}"
    assert not header.is_embedding
    assert not header.fills_in
