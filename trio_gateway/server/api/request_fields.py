"""The fields of requests whose types are known, by endpoint, for the check and `/openapi.json`.

The types are those that OpenAI, Anthropic or llama.cpp's server take, whichever takes more. `null`
is always allowed and means "not given". Fields that are not listed are the engines' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from trio_gateway import rawjson

# Engines read integers into 32 or 64 bits, and more digits than that come out as something else.
# They take `4.0` and `1e2` for integers; so does `decode_values`.
INT64_MAX, UINT64_MAX = 2**63 - 1, 2**64 - 1
Int = Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
# Some clients draw 64 random bits. A `le` of that size is more than msgspec takes.
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), extra_json_schema={"maximum": UINT64_MAX})]
# -1: as much as the context holds. -2 is llama.cpp's older word for it.
Tokens = Annotated[int, msgspec.Meta(ge=-2, le=INT64_MAX)]
# No engine makes more answers of one prompt; each one takes memory.
Choices = Annotated[int, msgspec.Meta(ge=1, le=16384)]
# Each costs some 10 µs until it is known whether they fit; no conversation has as many.
ENTRIES_MAX = 50_000
Slot = Annotated[int, msgspec.Meta(ge=-1, le=65535)]
Object = dict[str, Any]
WholeFloat = Annotated[float, msgspec.Meta(multiple_of=1)]
Objects = Annotated[list[Object], msgspec.Meta(max_length=ENTRIES_MAX)]
Texts = str | list[str]


class Part(msgspec.Struct):
    """A part of a message's content. Others than texts are for the engine to judge."""

    type: str | None = None
    text: str | None = None


class Message(msgspec.Struct):
    role: str | None = None
    content: str | list[str | Part] | Object | None = None
    name: str | None = None
    tool_calls: Objects | None = None
    tool_call_id: str | None = None


Messages = Annotated[list[Message], msgspec.Meta(max_length=ENTRIES_MAX)]
# A text, token ids, a mixture, several of these; with images as llama.cpp wants them.
Prompt = str | list[str | int | list[str | int] | Object] | Object


Documents = Annotated[list[str | Object], msgspec.Meta(max_length=ENTRIES_MAX)]


class AnyFields(msgspec.Struct):
    """Of every JSON request with a model."""

    model: str | None = None


class Sampling(AnyFields):
    """What every endpoint takes that generates text."""

    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Seed | None = None
    max_tokens: Tokens | None = None
    n_predict: Tokens | None = None
    n_keep: Int | None = None
    n_probs: Int | None = None
    ignore_eos: bool | None = None
    id_slot: Slot | None = None
    cache_prompt: bool | None = None
    return_progress: bool | None = None
    timings_per_token: bool | None = None
    grammar: str | None = None
    stop: Texts | None = None
    logit_bias: Object | list[Any] | None = None
    stream_options: Object | None = None
    user: str | None = None


class ChatFields(Sampling):
    messages: Messages | None = None
    max_completion_tokens: Tokens | None = None
    n: Choices | None = None
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    tools: Objects | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    response_format: Object | None = None
    reasoning_effort: str | None = None
    reasoning_format: str | None = None
    chat_template_kwargs: Object | None = None
    add_generation_prompt: bool | None = None
    metadata: Object | None = None


class PromptFields(Sampling):
    prompt: Prompt | None = None
    suffix: str | None = None
    echo: bool | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    logprobs: int | bool | None = None


class InfillFields(Sampling):
    input_prefix: str | None = None
    input_suffix: str | None = None
    input_extra: Objects | None = None
    prompt: Prompt | None = None


class ResponsesFields(AnyFields):
    input: str | Objects | None = None
    instructions: str | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: Tokens | None = None
    tools: Objects | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    text: Object | None = None
    reasoning: Object | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    metadata: Object | None = None


class MessagesFields(AnyFields):
    messages: Messages | None = None
    system: str | Objects | None = None
    max_tokens: Tokens | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    stop_sequences: list[str] | None = None
    tools: Objects | None = None
    tool_choice: Object | None = None
    thinking: Object | None = None
    metadata: Object | None = None


class InputFields(AnyFields):
    input: Prompt | None = None
    content: Prompt | None = None
    encoding_format: str | None = None
    dimensions: Int | None = None
    user: str | None = None


class RerankFields(AnyFields):
    query: str | None = None
    documents: Documents | None = None
    texts: Documents | None = None
    top_n: Int | None = None
    return_documents: bool | None = None


class TokenizeFields(AnyFields):
    content: str | list[str | Int | WholeFloat] | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeFields(AnyFields):
    tokens: list[Int | WholeFloat] | None = None


class SpeechFields(AnyFields):
    input: str | None = None
    voice: str | Object | None = None
    instructions: str | None = None
    response_format: str | None = None
    speed: float | None = None


class ImageFields(AnyFields):
    prompt: str | None = None
    n: Choices | None = None
    size: str | None = None
    quality: str | None = None
    response_format: str | None = None
    user: str | None = None


FIELDS: Mapping[str, type[AnyFields]] = {
    "chat/completions": ChatFields,
    "chat/completions/input_tokens": ChatFields,
    "apply-template": ChatFields,
    "completions": PromptFields,
    "completion": PromptFields,
    "infill": InfillFields,
    "responses": ResponsesFields,
    "responses/input_tokens": ResponsesFields,
    "messages": MessagesFields,
    "messages/count_tokens": MessagesFields,
    "embeddings": InputFields,
    "embedding": InputFields,
    "rerank": RerankFields,
    "tokenize": TokenizeFields,
    "detokenize": DetokenizeFields,
    "audio/speech": SpeechFields,
    "images/generations": ImageFields,
}


def fields_of(endpoint_name: str) -> type[AnyFields]:
    return FIELDS.get(endpoint_name, AnyFields)


class Mistake(NamedTuple):
    """`where`: as JavaScript would write it: `messages[0].role`."""

    where: str
    what: str

    @property
    def field(self) -> str:
        """The top-level field."""
        return re.split(r"[.\[]", self.where, maxsplit=1)[0]


# More than a double holds.
DIGITS_MAX = 308
# Found in time that grows with the text alone: a pattern begins anew at each digit of a run.
_MANY_DIGITS = b"0" * DIGITS_MAX
_DIGITS_ALIKE = bytes(ord("0") if chr(byte) in "0123456789" else byte for byte in range(256))
_KINDS: set[type[AnyFields]] = {AnyFields, *FIELDS.values()}
_KNOWN = {kind: frozenset(kind.__struct_fields__) for kind in _KINDS}
KNOWN = frozenset[str]().union(*_KNOWN.values())  # of any endpoint


def _integers_of(kind: type[AnyFields]) -> set[str]:
    """Its fields that are integers, and no other numbers."""
    found = set()
    for field in msgspec.structs.fields(kind):
        info = msgspec.inspect.type_info(field.type)
        for each in info.types if isinstance(info, msgspec.inspect.UnionType) else (info,):
            bare = each.type if isinstance(each, msgspec.inspect.Metadata) else each
            if isinstance(bare, msgspec.inspect.IntType):
                found.add(field.name)
    return found


# Of any endpoint: no name is an integer at one and another number elsewhere.
INTEGERS = frozenset[str]().union(*map(_integers_of, _KINDS))
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def decode_values(data: bytes, members: Mapping[str, msgspec.Raw]) -> dict[str, Any] | Mistake:
    """The value of each member of this object, or the first that no engine could read. Integers are
    such however they are written: the members stay as they came.

    Raises:
        msgspec.DecodeError, RecursionError: what no parser should be given.
    """
    try:
        values: dict[str, Any] = rawjson.decode(data)
    except msgspec.ValidationError:
        return _unreadable(members)
    for name in INTEGERS.intersection(values):
        if type(value := values[name]) is float:
            values[name] = as_integer(name, value)
    return values


def _unreadable(members: Mapping[str, msgspec.Raw]) -> Mistake:
    for name, raw in members.items():
        try:
            rawjson.decode(raw)
        except msgspec.ValidationError as error:
            return _mistake(str(error), within=name[:80])
    raise AssertionError("one of them cannot be decoded")


def as_integer(name: str, value: float) -> float | int:
    """A field's value: an integer, if it is whole and the field has integers."""
    return int(value) if name in INTEGERS and value.is_integer() else value


def find_mistake(
    endpoint_name: str, members: Mapping[str, msgspec.Raw], values: Mapping[str, Any]
) -> Mistake | None:
    """The first field with a wrong type, if there is one. `values`: the members, decoded.

    Raises:
        RecursionError: they are nested too deeply.
    """
    kind = fields_of(endpoint_name)
    try:
        msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        return _mistake(str(error))
    known = _KNOWN[kind]
    if "seed" in values and "seed" in known and (values["seed"] or 0) > UINT64_MAX:
        return Mistake("seed", f"expected `integer` <= {UINT64_MAX}")
    if known.issuperset(members):
        return None
    for name in members:
        if name not in known and (what := _unfit(members[name])):
            return Mistake(name[:80], what)
    return None


def _unfit(value: msgspec.Raw) -> str | None:
    """What makes a value of any type unfit for every engine, if anything does."""
    written = bytes(value)
    if len(written) >= DIGITS_MAX and _MANY_DIGITS in written.translate(_DIGITS_ALIKE):
        try:
            json.loads(written, parse_int=_bounded)  # digits in texts do no harm
        except ValueError as error:
            return str(error)
    return None


def _bounded(digits: str) -> float:
    if len(digits) > DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits")
    return 0.0


def _mistake(text: str, within: str = "") -> Mistake:
    """Of msgspec's words: "Expected `str | null`, got `int` - at `$.messages[0].role`"."""
    what, _, path = text.rpartition(" - at ")
    if not what:
        what, path = text, ""
    what = re.sub(r"\b(str|int|float|bool)\b", lambda found: _JSON_TYPES[found[0]], what)
    where = (within + path.strip("`").removeprefix("$")).removeprefix(".")
    return Mistake(where, what[:1].lower() + what[1:])
