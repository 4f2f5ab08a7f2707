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
    TOKENS_AROUND_THOUGHTS,
    ChatTemplate,
    Frame,
    Rendered,
)
from trio_gateway.models.counting.refusal import CannotCount
from trio_gateway.models.counting.template_use import TemplateUse

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
FUNCTION = {"name": "get", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}


def text(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def part(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def render(source: str, *messages: dict[str, Any], frame: Frame = FRAME, **more: Any) -> Rendered:
    chat = msgspec.convert({"messages": list(messages), **more}, Chat)
    return ChatTemplate(source, frame).render(chat)


def rendered_with(source: str, use: TemplateUse, *messages: dict[str, Any]) -> Rendered:
    return ChatTemplate(source, FRAME).render(Chat(messages=list(messages)), use)


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


def test_marks_for_training_are_nothing() -> None:
    assert prompt("{% generation %}" + PLAIN + "{% endgeneration %}", USER, answer("a"), USER)


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


# -- tools ---------------------------------------------------------------------------------------

SHOWN_TOOL = (
    '{"type": "function", "function": '
    '{"name": "get", "description": "", "parameters": {"type": "object"}}}'
)
CALLS = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "ARGUMENTS;{% endfor %}{{ m.content }}{% endfor %}"
)


def test_tools_are_what_the_engine_makes_of_them() -> None:
    source = "{% for t in tools %}{{ t | tojson }}{% endfor %}" + PLAIN
    strict = {"type": "function", "function": {**FUNCTION, "strict": True}}
    assert prompt(source, USER, tools=[strict]) == SHOWN_TOOL + "[user:hi][assistant:"
    assert prompt(source, USER, tools=[]) == "[user:hi][assistant:"


def test_a_template_without_tools_drops_them() -> None:
    assert prompt(PLAIN, USER, tools=[TOOL]) == "[user:hi][assistant:"


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("{{ c.function.arguments | tojson }}", '{"a": 1, "b": [0.5, null]}'),
        ("{{ c.function.arguments | string }}", "{'a': 1, 'b': [0.5, None]}"),
        ("{{ c.function.arguments.arg }}{{ c.function.arguments.a }}", "1"),
        (
            "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }} {% endfor %}",
            "a=1 b=0.5 ",
        ),
        # what takes them as they are gets them as text
        ("{{ c.function.arguments }}", '{"a": 1, "b": [0.5, null]}'),
        ("{{ '=' + c.function.arguments }}", '={"a": 1, "b": [0.5, null]}'),
    ],
)
def test_arguments_are_objects_where_the_template_looks_into_them(used: str, expected: str) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": '{"a": 1, "b": [0.5, null]}'}}
    source = CALLS.replace("ARGUMENTS", used)
    assert prompt(source, USER, answer("", tool_calls=[call]), USER) == f"hi{expected};hi"


@pytest.mark.parametrize(
    ("value", "tojson", "printed", "added"),
    [
        ("null", "null", "", ""),
        ("1.0", "1", "1.0", "1.0"),
        ("1e-7", "1e-07", "0.0", "0.0"),
        ("true", "true", "True", "True"),
        ("18446744073709551615", "-1", "-1", "-1"),
        ('{"k": "<é>"}', '{"k": "<é>"}', "", "{'k': '<é>'}"),
        ('[1, "x"]', '[1, "x"]', "1x", "[1, 'x']"),
    ],
)
def test_values_are_written_as_the_engine_writes_them(
    value: str, tojson: str, printed: str, added: str
) -> None:
    shown = {"type": "function", "function": {"name": "f", "parameters": {"v": "VALUE"}}}
    tool = msgspec.json.decode(msgspec.json.encode(shown).replace(b'"VALUE"', value.encode()))
    taken = "tools[0].function.parameters.v"
    source = "{{ V | tojson }};{{ V }};{{ '' ~ V }};{{ messages[0].content }}".replace("V", taken)
    assert prompt(source, USER, tools=[tool]) == f"{tojson};{printed};{added};hi"


def test_json_on_several_lines_and_with_other_separators() -> None:
    source = "{{ tools[0].function.parameters | tojson(FORM) }}{{ messages[0].content }}"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": [1], "b": {}}}}
    lines = prompt(source.replace("FORM", "indent=2"), USER, tools=[tool])
    assert lines == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}hi'
    dense = prompt(source.replace("FORM", "separators=(',', ':')"), USER, tools=[tool])
    assert dense == '{"a":[1],"b":{}}hi'


def test_what_is_not_there_is_nothing() -> None:
    source = (
        "{{ a.b.c }}{{ a + 'x' }}{{ none + 'y' }}{{ a.items() | length }}{{ none | default('z') }}"
    )
    assert prompt(source + PLAIN, USER) == "xy0z[user:hi][assistant:"


def test_a_template_may_keep_a_list_of_its_own() -> None:
    source = "{% set ids = [] %}{% set _ = ids.append('a') %}{{ ids.pop(0) }}"
    assert prompt(source + PLAIN, USER) == "a[user:hi][assistant:"


# -- families ------------------------------------------------------------------------------------

THINKING = "{% for m in messages %}{{ m.thinking }}:{{ m.content }};{% endfor %}"


def test_thoughts_get_the_name_that_the_family_has_for_them() -> None:
    said = answer("a", reasoning_content="hm")
    called = answer("a", reasoning_content="hm", tool_calls=[CALL])
    harmony = THINKING + "{# <|channel|> #}"
    assert prompt(harmony, USER, said, USER) == ":hi;hm:a;:hi;"
    assert prompt(harmony, USER, called, USER) == ":hi;hm:;:hi;"
    lfm2 = THINKING + "{# <|tool_list_start|> #}"
    assert prompt(lfm2, USER, called, USER) == ":hi;hm:a;:hi;"
    parts = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}<{{ p[p.type] }}>{% endfor %}{% endif %}{% endfor %}"
        "{# [SYSTEM_PROMPT][TOOL_CALLS][ARGS] #}"
    )
    assert prompt(parts, USER, said, USER) == "hi<hm><a>hi"


def test_a_developer_stays_one_where_the_family_knows_them() -> None:
    said = prompt(PLAIN + "{# <|channel|> #}", {"role": "developer", "content": "D"}, USER)
    assert said.startswith("[developer:D]")


def test_results_stand_in_the_order_of_their_calls_where_the_family_wants_it() -> None:
    calls = [{**CALL, "id": name} for name in ("a", "b")]
    results = [{"role": "tool", "content": i, "tool_call_id": i} for i in ("b", "a")]
    chat = [USER, answer("", tool_calls=calls), *results, USER]
    source = "{% for m in messages %}{{ m.content }},{% endfor %}{# tool_calls #}"
    assert prompt(source, *chat) == "hi,,b,a,hi,"
    assert prompt(source + "{# dsml_token DSML #}", *chat) == "hi,,a,b,hi,"


def test_calls_and_results_are_one_turn_where_the_family_wants_it() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}{{ m.tool_responses | tojson }}{{ m.content }};"
        "{% endfor %}{# '<|tool_call>call:' #}"
    )
    result = {"role": "tool", "content": '{"x": 1}'}
    said = prompt(source, USER, answer("", tool_calls=[CALL]), result, answer("done"), USER)
    assert said == ('usernullhi;assistant[{"name": "f", "response": {"x": 1}}]done;usernullhi;')


def test_a_schema_is_a_variable_of_one_family() -> None:
    source = PLAIN + "{{ response_format | tojson }}{# dsml_token DSML tool_calls #}"
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}
    assert prompt(source, USER, response_format=form).endswith('{"type": "array"}')
    json_object = prompt(source, USER, response_format={"type": "json_object"})
    assert json_object.endswith('{"type": "object"}')


# -- what only the engine knows -----------------------------------------------------------------


def test_thinking_is_on_unless_the_request_says_otherwise() -> None:
    source = PLAIN + "{% if not enable_thinking %}<think></think>{% endif %}"
    assert prompt(source, USER) == "[user:hi][assistant:"
    for off in ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}):
        assert prompt(source, USER, **off).endswith("<think></think>")


def test_thinking_is_counted_in_both_ways_where_engines_may_not_find_that_it_can() -> None:
    source = PLAIN + "{% if enable_thinking %}[hm]{% endif %}"
    assert not render(source, USER).exact
    assert render(source, USER, chat_template_kwargs={"enable_thinking": False}).exact


def test_whether_an_older_build_thinks_is_counted_in_both_ways() -> None:
    source = PLAIN + "{% if not enable_thinking %}<think></think>{% endif %}"
    assert not rendered_with(source, TemplateUse(may_not_think=True), USER).exact
    on = TemplateUse(may_not_think=True, kwargs={"enable_thinking": True})
    assert rendered_with(source, on, USER).exact


def test_earlier_thoughts_are_counted_with_and_without_where_the_engine_s_options_decide() -> None:
    source = (
        "{% for m in messages %}{% if not clear_thinking | default(true) %}"
        "{{ m.reasoning_content }}{% endif %}{{ m.content }};{% endfor %}"
    )
    chat = [USER, answer("a", reasoning_content="hm"), USER]
    rendered = render(source, *chat)
    assert (list(rendered.texts), rendered.exact) == (["hi;a;hi;", "hi;hma;hi;"], False)
    assert render(source, USER).exact
    chosen = TemplateUse(may_keep_thoughts=False)
    assert rendered_with(source, chosen, *chat).texts == ["hi;a;hi;"]
    kept = prompt(source, *chat, chat_template_kwargs={"preserve_reasoning": True})
    assert kept == "hi;hma;hi;"


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for", "broken"),
        ("{{ raise_exception('never') }}", "does not accept text"),
        ("{% nothing %}", "broken"),
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
        [USER, answer("a", tool_calls=[{"function": {"name": "f"}}]), USER],
        [USER, answer("a", tool_calls="x"), USER],
        [{**USER, "name": 5}],
    ],
)
def test_a_chat_that_the_engine_refuses_or_goes_on_with_in_its_own_way_is_refused(
    messages: list[dict[str, Any]],
) -> None:
    assert refused(PLAIN, *messages)


def test_a_half_answer_gets_room_for_thoughts_that_may_go_before_it() -> None:
    thoughtful = PLAIN + "{# <think> #}"
    rendered = render(thoughtful, USER, answer("yes", reasoning_content="hm"))
    assert list(rendered.texts) == ["[user:hi][assistant:hmyes"]
    assert (rendered.extra_tokens, rendered.exact) == (TOKENS_AROUND_THOUGHTS, False)
    assert prompt(PLAIN, USER, answer("yes", reasoning_content="hm")) == "[user:hi][assistant:yes"


def test_a_client_may_ask_for_the_answer_to_be_continued() -> None:
    asked = {"continue_final_message": True, "add_generation_prompt": False}
    assert prompt(PLAIN, USER, answer("yes"), **asked) == "[user:hi][assistant:yes"


def test_a_system_message_that_has_no_place_goes_into_the_next() -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    system = {"role": "system", "content": "S"}
    assert prompt(source, system, USER) == "S\nhi"
    assert prompt(source, system) == ""
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
