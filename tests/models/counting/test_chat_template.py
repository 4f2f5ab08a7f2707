"""Chat templates, rendered as the engine renders them: the expected texts are an engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_gateway.config.lua.presets import preset
from trio_gateway.gguf.metadata import read_metadata
from trio_gateway.models.counting.chat_shape import Chat
from trio_gateway.models.counting.chat_template import (
    TOKENS_PER_TOOL,
    ChatTemplate,
    Frame,
    Rendered,
)
from trio_gateway.models.counting.refusal import CannotCount

FRAME = Frame("<s>", "</s>", adds_bos=False, adds_eos=False)
PLAIN = (
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{% if add_generation_prompt %}[assistant:{% endif %}"
)
SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}


def text(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def part(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def render(source: str, *messages: dict[str, Any], frame: Frame = FRAME, **more: Any) -> Rendered:
    chat = msgspec.convert({"messages": list(messages), **more}, Chat)
    return ChatTemplate(source, frame).render(chat)


def prompt(source: str, *messages: dict[str, Any], **more: Any) -> str:
    """The one text that it can be."""
    rendered = render(source, *messages, **more)
    assert rendered.exact
    (only,) = rendered.texts
    return only


def refused(source: str, *messages: dict[str, Any], **more: Any) -> str:
    with pytest.raises(CannotCount) as refusal:
        render(source, *messages, **more)
    return str(refusal.value)


@pytest.fixture(scope="module")
def smollm2() -> str:
    source = read_metadata(Path(preset("models", "smollm2"))).text("tokenizer.chat_template")
    assert source is not None
    return source


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        ([text(None)], "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"),
        (
            [text([part("a"), part(""), part("b")])],
            "<|im_start|>user\na\n\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [text([part(""), {"type": "image_url", "image_url": {}}, part("b")])],
            "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
        ([USER, answer("yes ")], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes "),
        (
            [USER, answer([part("a"), part("b")])],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\na\n\nb",
        ),
        ([USER, answer(None)], "<|im_start|>user\nhi<|im_end|>\n"),
        (
            [USER, answer(None, tool_calls=[CALL]), {"role": "tool", "content": "r"}],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
            "<|im_start|>tool\nr<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_smollm2_gets_the_prompt_that_the_engine_makes(
    smollm2: str, messages: list[dict[str, Any]], expected: str
) -> None:
    assert prompt(smollm2, *messages) == SYSTEM + expected


def test_a_developer_is_the_system(smollm2: str) -> None:
    said = prompt(smollm2, {"role": "developer", "content": "D"}, USER)
    assert said.startswith("<|im_start|>system\nD<|im_end|>\n<|im_start|>user\nhi")


def test_a_client_may_do_without_the_beginning_of_an_answer() -> None:
    assert prompt(PLAIN, USER, add_generation_prompt=False) == "[user:hi]"


def test_bos_and_eos_that_the_tokenizer_adds_are_not_there_twice() -> None:
    source = "{{ bos_token }}" + PLAIN + "{{ eos_token }}"
    assert prompt(source, USER) == "<s>[user:hi][assistant:</s>"
    adding = Frame("<s>", "</s>", adds_bos=True, adds_eos=True)
    assert prompt(source, USER, frame=adding) == "[user:hi][assistant:"


def test_parts_stay_parts_where_the_template_walks_through_them() -> None:
    both = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}"
    )
    assert prompt(both, text([part("a"), part("b")]), text("c")) == "<a><b>c"
    only_parts = (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}|{% endfor %}{% endfor %}"
    )
    assert prompt(only_parts, text("c"), text([part("a"), part("b")])) == "c|a|b|"


def test_blocks_and_loops_are_as_in_hugging_face_s_templates() -> None:
    source = (
        "{% for m in messages %}\n"
        "    {% if loop.index0 > 1 %}{% break %}{% endif %}\n"
        "{{ m.content | tojson }}\n"
        "{% endfor %}\n"
    )
    assert prompt(source, text("<é>"), text("b"), text("c")) == '"<é>"\n"b"\n'


def test_kwargs_are_variables_of_the_template() -> None:
    source = PLAIN + "{{ flavour }}{{ reasoning_effort }}"
    kwargs = {"flavour": "x"}
    said = prompt(source, USER, chat_template_kwargs=kwargs, reasoning_effort="low")
    assert said == "[user:hi][assistant:xlow"


def test_the_dates_are_there() -> None:
    assert prompt("{{ strftime_now('%%') }}{{ date_string | length }}" + PLAIN)[:3] == "%11"


# -- what only the engine knows -----------------------------------------------------------------


def test_thinking_that_depends_on_the_engine_s_start_is_counted_in_both_ways() -> None:
    source = PLAIN + "{% if not enable_thinking %}<think></think>{% endif %}"
    rendered = render(source, USER)
    assert not rendered.exact
    assert {t.removeprefix("[user:hi][assistant:") for t in rendered.texts} == {
        "", "<think></think>",
    }  # fmt: skip
    off = {"enable_thinking": False}
    assert prompt(source, USER, chat_template_kwargs=off).endswith("<think></think>")


def test_tools_are_rendered_with_an_allowance_for_what_the_engine_says_about_them() -> None:
    source = "{% for t in tools %}{{ t.function.name }}{% endfor %}" + PLAIN
    rendered = render(source, USER, tools=[TOOL, TOOL])
    assert list(rendered.texts) == ["getget[user:hi][assistant:"]
    assert (rendered.extra_tokens, rendered.exact) == (2 * TOKENS_PER_TOOL, False)


def test_tools_that_the_template_does_not_mention_may_be_described_by_the_engine() -> None:
    rendered = render(PLAIN, USER, tools=[TOOL])
    assert '"name": "get"' in rendered.texts[0]
    assert not rendered.exact


def test_arguments_of_calls_are_counted_as_text_and_as_objects() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{{ c.function.arguments | tojson }}{% endfor %}{{ m.content }}{% endfor %}"
    )
    rendered = render(source, USER, answer("", tool_calls=[CALL]), USER)
    assert list(rendered.texts) == ['hi"{\\"a\\": 1}"hi', 'hi{"a": 1}hi']
    assert (rendered.extra_tokens, rendered.exact) == (TOKENS_PER_TOOL, False)


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for", "broken"),
        (PLAIN + "<|channel|>", "in a special way"),
        ("{{ raise_exception('never') }}", "does not accept text"),
        ("{% generation %}{% endgeneration %}", "broken"),
    ],
)
def test_a_template_that_is_not_understood_is_refused(source: str, why: str) -> None:
    assert why in refused(source, USER)


@pytest.mark.parametrize(
    "messages",
    [
        [{"content": "x"}],
        [{"role": 1, "content": "x"}],
        [{"role": "user"}],
        [text(5)],
        [text([{"type": "text"}])],
        [USER, answer("a"), answer("b")],
        [USER, answer("a", tool_calls=[CALL])],
        [USER, answer("", reasoning_content="hm")],
        [USER, answer("a", tool_calls=[{"function": {"name": "f"}}]), USER],
        [USER, answer("a", tool_calls="x"), USER],
        [{**USER, "name": 5}],
    ],
)
def test_a_chat_that_the_engine_refuses_or_goes_on_with_in_its_own_way_is_refused(
    messages: list[dict[str, Any]],
) -> None:
    assert refused(PLAIN, *messages)


def test_a_half_answer_is_refused_where_thoughts_may_go_before_it() -> None:
    assert "reasoning" in refused(PLAIN + "{# <think> #}", USER, answer("a"))


def test_a_system_message_is_refused_where_the_template_does_not_show_it() -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    assert "system" in refused(source, {"role": "system", "content": "S"}, USER)
    assert prompt(source, USER) == "hi"


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template_kwargs": {"messages": []}},
        {"chat_template_kwargs": {"enable_thinking": "no"}},
        {"continue_final_message": True},
        {"tools": [{"type": "web_search"}]},
    ],
)
def test_fields_that_the_engine_has_uses_of_its_own_for_are_refused(more: dict[str, Any]) -> None:
    assert refused(PLAIN, USER, **more)


def test_a_refusal_quotes_nothing_of_the_chat() -> None:
    source = "{% if messages[0].content != 'a-text-to-look-for' %}" + (
        "{{ raise_exception('not ' + messages[0].content) }}{% endif %}{{ messages[0].content }}"
    )
    assert "secret" not in refused(source, text("secret"))


def test_a_template_gets_no_hold_of_python() -> None:
    source = PLAIN + "{% if messages[0].content == 'x' %}{{ ''.__class__.__mro__ }}{% endif %}"
    assert "object" not in prompt(source, text("y"))
    assert "rejects" in refused(source, text("x"))
