"""Which chat template a llama-server uses, as its options say it. Pure.

`--chat-template` is a name of llama.cpp's or a template itself, `--chat-template-file` the path of
one; of the two the last wins. Without them it is the model's own. `--no-jinja` leaves llama.cpp's
built-in forms of chats, which know neither tools nor thoughts; so does a name.
"""

from __future__ import annotations

import msgspec

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.server_options import CHAT_TEMPLATE, CHAT_TEMPLATE_FILE, JINJA

CHATML = "chatml"  # what a model without a template gets


class TemplateChoice(msgspec.Struct, frozen=True):
    """`text`: it, or a name. `file`: its path, as given. Both None: the model's own. `uses_jinja`:
    whether it is a program; otherwise the engine only guesses by it which of its forms it is."""

    text: str | None = None
    file: str | None = None
    uses_jinja: bool = True

    @property
    def is_own(self) -> bool:
        """Whether it is the model's own."""
        return self.text is None and self.file is None


def template_choice(args: EngineArgs) -> TemplateChoice:
    """An empty one is as none, as for llama-server."""
    uses_jinja = args.switch(JINJA) is not False  # the default since December 2025
    given = args.last_of(CHAT_TEMPLATE, CHAT_TEMPLATE_FILE)
    if given is None or not given.value:
        return TemplateChoice(uses_jinja=uses_jinja)
    if given.option is CHAT_TEMPLATE:
        return TemplateChoice(text=given.value, uses_jinja=uses_jinja)
    return TemplateChoice(file=given.value, uses_jinja=uses_jinja)
