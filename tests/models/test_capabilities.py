"""What a model can do, by its options and its files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.clients.openai import OpenAIKind
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.models.capabilities import capabilities_of, likely_capabilities, template_of
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.server.api.model_entry import words

TOOLS, THINKS = "{% if tools %}{{ tools }}{% endif %}", "{{ enable_thinking }}"
PLAIN = "{{ messages }}"
MODEL = ("-m", "m.gguf")


def header(template: str | None = None, **fields: Any) -> GgufHeader:
    values = fields.pop("values", {})
    return GgufHeader(
        architecture="a", vocabulary=1, values=values, chat_template=template, **fields
    )


def on(*args: str, **env: str) -> ModelConfig:
    return model("m", variant(2048), variant(8192, args=args, env=env))


def found(given: ModelConfig, own: GgufHeader | None = None, **facts: Any) -> list[str] | None:
    known = capabilities_of(given, ModelFacts(header=own, **facts), LlamaCppKind.endpoints)
    return None if known is None else words(known)


# -- the template that the engine will use -------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "own", "file", "expected"),
    [
        (MODEL, TOOLS, None, ["completion", "tools"]),
        (MODEL, TOOLS + THINKS, None, ["completion", "tools", "thinking"]),
        (MODEL, PLAIN, None, ["completion"]),
        (MODEL, None, None, ["completion"]),  # the engine's own ChatML knows no tools
        (MODEL, "{# no tools, no <think> #}" + PLAIN, None, ["completion"]),
        # a file brings tools, or takes them away
        ((*MODEL, "--chat-template-file", "t"), PLAIN, TOOLS, ["completion", "tools"]),
        ((*MODEL, "--chat_template_file", "t"), PLAIN, TOOLS, ["completion", "tools"]),
        ((*MODEL, "--chat-template-file", "t"), TOOLS, PLAIN, ["completion"]),
        ((*MODEL, "--chat-template-file", "t"), TOOLS, None, None),  # it cannot be read
        # a name of llama.cpp's, or a template itself
        ((*MODEL, "--chat-template", "chatml"), TOOLS, None, ["completion"]),
        ((*MODEL, "--chat-template", "llama3"), TOOLS, None, ["completion"]),
        ((*MODEL, "--chat-template", TOOLS), PLAIN, None, ["completion", "tools"]),
        # the last one wins
        ((*MODEL, "--chat-template", "chatml", "--chat-template-file", "t"), PLAIN, TOOLS,
         ["completion", "tools"]),
        ((*MODEL, "--chat-template-file", "t", "--chat-template", "chatml"), TOOLS, TOOLS,
         ["completion"]),
        ((*MODEL, "--chat-template", TOOLS, "--chat-template-file", "t", "--chat-template", "x"),
         TOOLS, TOOLS, ["completion"]),
        # without Jinja there is neither
        ((*MODEL, "--no-jinja"), TOOLS + THINKS, None, ["completion"]),
        ((*MODEL, "--no-jinja", "--jinja"), TOOLS, None, ["completion", "tools"]),
        ((*MODEL, "--jinja", "--no-jinja"), TOOLS, None, ["completion"]),
        ((*MODEL, "--skip-chat-parsing"), TOOLS + THINKS, None, ["completion"]),
    ],
)  # fmt: skip
def test_tools_and_thoughts_come_from_the_template_in_use(
    args: tuple[str, ...], own: str | None, file: str | None, expected: list[str] | None
) -> None:
    assert found(on(*args), header(own), template=file) == expected


@pytest.mark.parametrize(
    ("env", "own", "file", "expected"),
    [
        ({"LLAMA_ARG_CHAT_TEMPLATE": "chatml"}, TOOLS, None, ["completion"]),
        ({"LLAMA_ARG_CHAT_TEMPLATE_FILE": "t"}, PLAIN, TOOLS, ["completion", "tools"]),
        # llama-server reads the file last
        ({"LLAMA_ARG_CHAT_TEMPLATE_FILE": "t", "LLAMA_ARG_CHAT_TEMPLATE": "chatml"}, PLAIN, TOOLS,
         ["completion", "tools"]),
        ({"LLAMA_ARG_JINJA": "0"}, TOOLS, None, ["completion"]),
        ({"LLAMA_ARG_NO_JINJA": "1"}, TOOLS, None, ["completion"]),
    ],
)  # fmt: skip
def test_variables_say_the_same(
    env: dict[str, str], own: str, file: str | None, expected: list[str]
) -> None:
    assert found(on(*MODEL, **env), header(own), template=file) == expected


def test_an_argument_wins_over_a_variable() -> None:
    given = on(*MODEL, "--chat-template", "chatml", LLAMA_ARG_CHAT_TEMPLATE_FILE="t")
    assert found(given, header(TOOLS), template=TOOLS) == ["completion"]
    assert template_of(given, ModelFacts(header=header(TOOLS), template=TOOLS)) == "chatml"


def test_a_template_for_tools_beside_the_other_one_is_used_with_tools() -> None:
    both = header(PLAIN, tools_template=TOOLS)
    assert found(on(*MODEL), both) == ["completion", "tools"]
    assert found(on(*MODEL, "--chat-template", PLAIN), both) == ["completion"]


# -- what else it can do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "values", "expected"),
    [
        (("--embeddings",), {}, ["embeddings"]),
        (("--embedding",), {}, ["embeddings"]),
        (("--rerank",), {}, ["rerank"]),
        (("--reranking", "--embedding"), {}, ["rerank"]),
        (("--embedding", "--pooling", "rank"), {}, ["rerank"]),
        (("--embedding", "--pooling", "mean"), {"pooling_type": 4}, ["embeddings"]),
        (("--embedding",), {"pooling_type": 4}, ["rerank"]),
        ((), {"pooling_type": 1}, ["embeddings"]),
        ((), {"attention.causal": 0}, ["embeddings"]),
    ],
)
def test_what_gives_vectors_answers_no_chats(
    args: tuple[str, ...], values: dict[str, int], expected: list[str]
) -> None:
    assert found(on(*MODEL, *args), header(TOOLS, values=values)) == expected


@pytest.mark.parametrize(
    ("args", "projector", "expected"),
    [
        ((), None, []),
        (("--mmproj", "p"), None, ["vision"]),  # which cannot be read: nearly all are for images
        (("-mm", "p"), {}, ["vision"]),
        (("--mmproj-url", "http://x/p"), None, ["vision"]),
        (("--mmproj", "p"), {"has_vision_encoder": 1}, ["vision"]),
        (("--mmproj", "p"), {"has_audio_encoder": 1}, ["audio"]),
        (("--mmproj", "p"), {"has_audio_encoder": 1, "has_vision_encoder": 1}, ["vision", "audio"]),
        (("--mmproj", "p"), {"has_audio_encoder": 1, "has_vision_encoder": 0}, ["audio"]),
    ],
)
def test_what_it_sees_is_its_projector_s(
    args: tuple[str, ...], projector: dict[str, int] | None, expected: list[str]
) -> None:
    read = None if projector is None else header(values=projector)
    assert found(on(*MODEL, *args), header(PLAIN), projector=read) == ["completion", *expected]


def test_a_gap_can_be_filled_with_tokens_for_it() -> None:
    assert found(on(*MODEL), header(PLAIN, fills_in=True)) == ["completion", "insert"]


# -- what is not known ---------------------------------------------------------------------------


@pytest.mark.parametrize("args", [(), MODEL, ("-hf", "org/model")])
def test_without_a_file_a_model_s_capabilities_are_not_known(args: tuple[str, ...]) -> None:
    assert found(on(*args)) is None
    likely = likely_capabilities(on(*args), ModelFacts(), LlamaCppKind.endpoints)
    assert words(likely) == ["completion", "tools"]  # editors hide what does no tools


@pytest.mark.parametrize(
    ("args", "said", "expected"),
    [
        (("-hf", "org/model"), {"engine_template": TOOLS, "engine_media": frozenset({"vision"})},
         ["completion", "tools", "vision"]),
        (("-hf", "org/model"), {"engine_template": TOOLS}, None),  # an older build
        (("-hf", "org/model", "--no-jinja"),
         {"engine_template": TOOLS, "engine_media": frozenset()}, ["completion"]),
        ((*MODEL, "--mmproj", "p"), {"engine_template": PLAIN, "engine_media": frozenset()},
         ["completion", "vision"]),
    ],
)  # fmt: skip
def test_what_no_file_says_the_engine_says_once_it_has_run(
    args: tuple[str, ...], said: dict[str, Any], expected: list[str] | None
) -> None:
    assert found(on(*args), **said) == expected


def test_a_file_says_it_first() -> None:
    assert found(on(*MODEL), header(TOOLS), engine_template=PLAIN) == ["completion", "tools"]


@pytest.mark.parametrize("kind", ["openai", "remote"])
@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        (None, None),
        ({"chat/completions"}, None),
        ({"chat/completions", "embeddings"}, None),
        ({"embeddings"}, ["embeddings"]),
        ({"embeddings", "rerank"}, ["embeddings", "rerank"]),
        ({"rerank"}, ["rerank"]),
        ({"audio/transcriptions"}, []),
    ],
)
def test_of_other_engines_only_what_the_configuration_says(
    kind: str, endpoints: set[str] | None, expected: list[str] | None
) -> None:
    served = None if endpoints is None else frozenset(endpoints)
    given = model("m", engine=ENGINE_TYPES[kind], endpoints=served)
    known = capabilities_of(given, ModelFacts(), served or OpenAIKind.endpoints)
    assert (None if known is None else words(known)) == expected


def test_another_engine_with_a_gguf_file_has_its_template() -> None:
    given = model("m", variant(args=("--no-jinja",)), engine=ENGINE_TYPES["openai"])
    known = capabilities_of(given, ModelFacts(header=header(TOOLS)), OpenAIKind.endpoints)
    assert known is not None
    assert words(known) == ["completion", "tools"]  # the option is not llama-server's
