"""Excess: by how much a request is too long for its model, and the sentences that say so. Pure.

Clients read these sentences. Those that shorten a conversation by themselves look for "maximum
context length is" (OpenAI's words), "exceeds the available context size" (llama.cpp's), or for
Anthropic's two sentences, whose numbers they use. So every sum here adds up as it is printed, and
an answer lowered to what is left is served.
"""

from __future__ import annotations

import enum

import msgspec

from trio_gateway.config.remarks import batch_limit
from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.need.bounds import MARGIN_TOKENS, least_answer


class Known(enum.Enum):
    """How well the tokens of a prompt are known."""

    EXACTLY = ""
    AT_LEAST = "at least "
    AT_MOST = "up to "


class Terms(msgspec.Struct, frozen=True):
    """How the client calls things. `limit`: the field that names the answer's maximum; `is_fixed`:
    whatever the client sends there, the configuration sets it. `text`: what takes up the context.
    """

    limit: str = "max_tokens"
    is_fixed: bool = False
    text: str = "prompt"


TERMS = Terms()


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """A request that no variant of its model holds. All numbers are tokens.

    `context`: of the largest variant. `prompt`: what it has, which is `known` so well. `answer`:
    the maximum that it names; None: none, 0: nothing is generated. `reserved`: what is kept free
    for the answer: its maximum, or what one without a maximum gets at least. `least`: what an
    answer keeps when its maximum is lowered; 0: it is not lowered. `why`: the context is no larger,
    and what can be done about that.
    """

    model: str
    context: int
    prompt: int
    answer: int | None
    reserved: int
    least: int = 0
    known: Known = Known.EXACTLY
    why: str = ""

    @property
    def margin(self) -> int:
        return 0 if self.answer == 0 else MARGIN_TOKENS

    @property
    def need(self) -> int:
        return self.prompt + self.reserved + self.margin

    @property
    def left(self) -> int:
        """For the answer; below 1 if the prompt alone does not fit."""
        return self.context - self.prompt - self.margin

    def could_lower(self, terms: Terms) -> bool:
        """Whether it would be served if the client sent a lower maximum of its answer."""
        return bool(self.answer) and self.left >= 1 and not terms.is_fixed


def excess_of(
    model: ModelConfig,
    context: int,
    prompt: int,
    answer: int | None,
    *,
    clamps: bool,
    known: Known = Known.EXACTLY,
    why: str = "",
) -> Excess:
    """`answer`: as the client asked for it. `clamps`: its maximum would be lowered to fit."""
    least = least_answer(model.min_answer_tokens, context)
    return Excess(
        model=model.name, context=context, prompt=prompt, answer=answer,
        reserved=least if answer is None else answer,
        least=least if clamps else 0, known=known, why=_why(model, context) or why,
    )  # fmt: skip


def between(least: int, most: int, context: int, answer: int | None) -> tuple[int, Known]:
    """What is said of a prompt between the two: if an answer can be lowered so that it fits for
    sure, by how much is worked out of the most."""
    if answer and least <= most < context - MARGIN_TOKENS:
        return most, Known.AT_MOST
    return least, Known.AT_LEAST


def _why(model: ModelConfig, context: int) -> str:
    """Where the model's largest variant holds less than its context."""
    for variant in model.variants:
        if variant.holds == context and (limit := batch_limit(variant)) is not None:
            return f"The variant's context is {variant.context}, but {limit}"
    return ""


def sentence(excess: Excess, terms: Terms = TERMS) -> str:
    """What is needed, what there is, and what the client can do about it."""
    exactness = excess.known.value
    limit = f"{terms.limit}, set by the configuration" if terms.is_fixed else terms.limit
    parts = [f"{exactness}{excess.prompt} for the {terms.text}"]
    if excess.answer is None:
        parts.append(f"at least {excess.reserved} for the answer")
    elif excess.answer:
        parts.append(f"{excess.answer} for the answer ({limit})")
    if excess.margin:
        parts.append(f"{excess.margin} of margin")
    *first, last = parts
    shares = f"{', '.join(first)} and {last}" if first else last
    return (
        f"the request needs {exactness}{excess.need} tokens ({shares}), but this model's maximum "
        f"context length is {excess.context} tokens ({excess.model}); {_cure(excess, terms)}"
        + (f". {excess.why}" if excess.why else "")
    )


def _cure(excess: Excess, terms: Terms) -> str:
    """Nothing that the client did not send can be lowered, nor more cut than there is."""
    cures = []
    if excess.could_lower(terms):
        # To how many is known only where no more is in the way than was counted.
        to = f" to {excess.left}" if excess.known is not Known.AT_LEAST else ""
        cures.append(f"lower {terms.limit}{to}")
    cut = excess.need - excess.context
    if cut < excess.prompt:
        tokens = f"{excess.known.value}{cut} token{'' if cut == 1 else 's'}"
        cures.append(f"cut {tokens} from the {terms.text}")
    if cures:
        return ", or ".join(cures)
    lower = f", and lower {terms.limit}" if excess.answer and not terms.is_fixed else ""
    return f"shorten the {terms.text}{lower}"


def llamacpp_sentence(excess: Excess, terms: Terms = TERMS) -> str:
    """First what llama.cpp says, which looks at the prompt alone."""
    ours = sentence(excess, terms)
    if excess.prompt < excess.context:
        return ours
    exactness = excess.known.value
    return (
        f"request ({exactness}{excess.prompt} tokens) exceeds the available context size "
        f"({excess.context} tokens): {ours}"
    )


def anthropic_sentence(excess: Excess, terms: Terms = TERMS) -> str:
    """In the words of Anthropic's API.

    By the first, Claude Code compacts its conversation; by the second it lowers `max_tokens` to
    what is left of C in "A + B > C", and asks again. It gives up if that is less than it wants: so
    where a maximum is lowered unasked, and too little is left even for that, both are said.
    """
    if not excess.could_lower(terms):
        return _prompt_too_long(excess, excess.reserved if terms.is_fixed else None)
    sum_is_too_long = (
        f"input length and `max_tokens` exceed context limit: {excess.prompt + excess.margin} + "
        f"{excess.answer} > {excess.context}, decrease input length or `max_tokens` and try again "
        f"({excess.margin} of the input are margin)"
    )
    if excess.left < excess.least:
        return f"{sum_is_too_long}; {_prompt_too_long(excess)}"
    return sum_is_too_long


def _prompt_too_long(excess: Excess, answer: int | None = None) -> str:
    """`answer`: what it has to have room for; None: the least."""
    if excess.prompt > excess.context:
        return f"prompt is too long: {excess.prompt} tokens > {excess.context} maximum"
    if answer is None:
        answer = excess.reserved if excess.answer is None else max(excess.least, 1)
    total = excess.prompt + answer + excess.margin
    return (
        f"prompt is too long: {total} tokens > {excess.context} maximum ({excess.prompt} of it, "
        f"{answer} for the answer and {excess.margin} of margin)"
    )
