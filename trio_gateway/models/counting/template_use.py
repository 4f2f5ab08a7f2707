"""TemplateUse: how the engines of a model use chat templates, as their options say. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import (
    CHAT_TEMPLATE_KWARGS,
    OVERRIDE_KV,
    REASONING,
    REASONING_BUDGET,
    REASONING_EFFORT,
    REASONING_PRESERVE,
    SKIP_CHAT_PARSING,
)
from trio_gateway.config.template_choice import CHATML, template_choice
from trio_gateway.finding.engines import EMBEDDED_COMMAND

_ON = frozenset({"on", "true", "enabled", "1"})
_OFF = frozenset({"off", "false", "disabled", "0"})


class TemplateUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """`text`, `file`: a template in place of the model's own; `text` may be the name `chatml`.
    `kwargs`: variables that requests may change. `may_keep_thoughts`: whether thoughts of earlier
    answers stay may be the engine's own choice. `may_not_think`: so may be whether it thinks."""

    text: str | None = None
    file: str | None = None
    kwargs: dict[str, Any] = {}
    may_keep_thoughts: bool = True
    may_not_think: bool = False


OWN_TEMPLATE = TemplateUse()


def template_use(model: ModelConfig) -> TemplateUse | None:
    """None: nobody but the engine can say what it makes of a chat."""
    variant = model.variants[0]
    args = variant.engine_args
    choice = template_choice(args)
    if args.has(OVERRIDE_KV) or args.is_on(SKIP_CHAT_PARSING) or not choice.uses_jinja:
        return None
    if choice.text is not None and "{" not in choice.text and choice.text != CHATML:
        return None  # a name: which form it means depends on the build
    try:
        kwargs = msgspec.json.decode(args.value(CHAT_TEMPLATE_KWARGS) or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    thinks = (args.value(REASONING) or "").lower()
    if thinks in _ON | _OFF:
        kwargs["enable_thinking"] = thinks in _ON
    if (effort := args.value(REASONING_EFFORT)) and effort != "default":
        kwargs["reasoning_effort"] = effort
    if (keeps := args.switch(REASONING_PRESERVE)) is not None:
        kwargs["preserve_reasoning"] = keeps
    return TemplateUse(
        text=choice.text,
        file=None if choice.file is None else str(variant.workdir / choice.file),
        kwargs=kwargs,
        may_keep_thoughts=Path(variant.binary).name != EMBEDDED_COMMAND,
        # No thinking at all in builds before October 2026; since then it only ends at once.
        may_not_think=args.number(REASONING_BUDGET) == 0,
    )


def refuses_tools(model: ModelConfig) -> bool:
    """A llama-server whose templates are no programs has no place for them: a chat with tools, or
    with a word on their choice, is an error there."""
    return model.engine.has_server_options and not any(
        template_choice(variant.engine_args).uses_jinja for variant in model.variants
    )
