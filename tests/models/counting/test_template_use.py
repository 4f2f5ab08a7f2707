"""What an engine's options say about its chat templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.schema_values import model, variant
from trio_gateway.finding.engines import EMBEDDED_COMMAND
from trio_gateway.models.counting.template_use import OWN_TEMPLATE, TemplateUse, template_use


def use(*args: str, binary: str = "llama-server", **env: str) -> TemplateUse | None:
    return template_use(model("m", variant(args=args, binary=binary, workdir=Path("/w"), env=env)))


def kwargs(*args: str, **env: str) -> dict[str, Any]:
    found = use(*args, **env)
    assert found is not None
    return found.kwargs


def test_without_options_it_is_the_models_own() -> None:
    assert use("-m", "m.gguf") == OWN_TEMPLATE


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (("--chat-template-file", "t.jinja"), TemplateUse(file="/w/t.jinja")),
        (("--chat-template-file", "/t.jinja"), TemplateUse(file="/t.jinja")),
        (("--chat_template_file=t.jinja",), TemplateUse(file="/w/t.jinja")),
        (("--chat-template", "{{ messages }}"), TemplateUse(text="{{ messages }}")),
        (("--chat-template", "chatml"), TemplateUse(text="chatml")),
        (("--jinja",), OWN_TEMPLATE),
        (("--reasoning-budget", "-1"), OWN_TEMPLATE),
        (("--reasoning-budget", "0"), TemplateUse(may_not_think=True)),
        # What it makes of a chat is not known.
        (("--chat-template", "llama3"), None),
        (("--no-jinja",), None),
        (("--override-kv", "tokenizer.ggml.add_bos_token=bool:false"), None),
        (("--skip-chat-parsing",), None),
        (("--chat-template-kwargs", "{"), None),
        (("--chat-template-kwargs", "[1]"), None),
    ],
)
def test_which_template_it_is(args: tuple[str, ...], found: TemplateUse | None) -> None:
    assert use(*args) == found


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (("--chat-template-kwargs", '{"a": 1}'), {"a": 1}),
        (("--reasoning", "off"), {"enable_thinking": False}),
        (("-rea", "on"), {"enable_thinking": True}),
        (("--reasoning", "auto"), {}),
        (("--reasoning-effort", "low"), {"reasoning_effort": "low"}),
        (("--reasoning-effort", "default"), {}),
        (("--reasoning-preserve",), {"preserve_reasoning": True}),
        (("--no-reasoning-preserve",), {"preserve_reasoning": False}),
    ],
)
def test_which_variables_it_gets(args: tuple[str, ...], found: dict[str, Any]) -> None:
    assert kwargs(*args) == found


def test_variables_of_the_environment_count_as_well() -> None:
    assert kwargs(LLAMA_ARG_CHAT_TEMPLATE_KWARGS='{"a": 1}') == {"a": 1}


def test_the_engine_in_the_package_keeps_no_earlier_thoughts_by_itself() -> None:
    assert use(binary=f"/bin/{EMBEDDED_COMMAND}") == TemplateUse(may_keep_thoughts=False)
