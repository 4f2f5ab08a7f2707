"""Hostile requests: every field that is known, with values of wrong types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.hostile_cases import HUGE, MESSAGES, Case, good, post

NUMBER = ["0.5", True, [], {}, [1]]
INTEGER = ["1000", 1.5, 1e300, True, [], {}, HUGE, -HUGE]
BOOLEAN = ["true", 1, 0, [], {}]
STRING = [1, True, [], {}]
TEXTS = [1, True, {}, [1], [None], [[]]]
OBJECT = ["x", 1, True, []]
OBJECTS = ["x", 1, True, {}, [1], ["x"], [[]], [None]]
CHOICE = [1, True, []]  # a word, or an object
MESSAGE_LIST = [
    "x", 1, True, {}, None, [], [1], ["x"], [None], [[]],
    [{"role": 1, "content": "x"}], [{"role": [], "content": "x"}], [{"role": "user", "content": 1}],
    [{"role": "user", "content": True}], [{"role": "user", "content": [1]}],
    [{"role": "user", "content": [[]]}], [{"role": "user", "content": [None]}],
    [{"role": "user", "content": [{"type": 1}]}],
    [{"role": "user", "content": [{"type": "text", "text": []}]}],
    [{"role": "assistant", "tool_calls": {}}], [{"role": "assistant", "tool_calls": ["x"]}],
    [{"role": "tool", "tool_call_id": 1, "content": "x"}], [*MESSAGES, 1], [*MESSAGES, None],
]  # fmt: skip
PROMPT: list[Any] = [1, True, None, [], {}, [None], [True], [1.5], [[None]], [[[1]]]]
TOKENS = [*INTEGER, -3]

SAMPLING: dict[str, list[Any]] = {
    **dict.fromkeys(("temperature", "top_p", "top_k", "frequency_penalty"), NUMBER),
    **dict.fromkeys(("presence_penalty", "min_p", "repeat_penalty"), NUMBER),
    "seed": INTEGER,
    "max_tokens": TOKENS,
    "n_predict": TOKENS,
    "stream": BOOLEAN,
    "stop": TEXTS,
    "stream_options": OBJECT,
    "logit_bias": ["x", 1, True],
    "cache_prompt": BOOLEAN,
    "grammar": STRING,
    "id_slot": [*INTEGER, "../../x", -2],
    "user": STRING,
}
CHATS = {
    **SAMPLING,
    "messages": MESSAGE_LIST,
    "max_completion_tokens": TOKENS,
    "n": [*INTEGER, 0, -1],
    "logprobs": BOOLEAN,
    "top_logprobs": INTEGER,
    "tools": OBJECTS,
    "tool_choice": CHOICE,
    "parallel_tool_calls": BOOLEAN,
    "response_format": OBJECT,
    "chat_template_kwargs": OBJECT,
    "reasoning_effort": STRING,
}
INPUT = [*PROMPT]
WRONG: dict[str, dict[str, list[Any]]] = {
    "/v1/chat/completions": CHATS,
    **{
        path: {"messages": MESSAGE_LIST[:9], "tools": OBJECTS}
        for path in ("/v1/chat/completions/input_tokens", "/apply-template", "/gateway/explain")
    },
    "/v1/completions": {
        **SAMPLING, "prompt": PROMPT, "echo": BOOLEAN, "suffix": STRING,
        "n": [*INTEGER, 0], "best_of": [*INTEGER, 0],
    },
    "/completion": {**SAMPLING, "prompt": PROMPT},
    "/infill": {
        **SAMPLING, "input_prefix": STRING, "input_suffix": STRING, "input_extra": OBJECTS,
    },
    "/v1/responses": {
        "input": ["", 1, True, None, {}, [], [1], ["x"]][1:], "instructions": STRING,
        "stream": BOOLEAN, "temperature": NUMBER, "max_output_tokens": TOKENS, "tools": OBJECTS,
        "metadata": OBJECT, "previous_response_id": STRING, "store": BOOLEAN, "reasoning": OBJECT,
    },
    "/v1/messages": {
        "messages": MESSAGE_LIST, "system": [1, True, {}, [1]], "max_tokens": TOKENS,
        "stream": BOOLEAN, "temperature": NUMBER, "stop_sequences": ["x", *TEXTS],
        "tools": OBJECTS, "tool_choice": OBJECT, "thinking": OBJECT, "metadata": OBJECT,
    },
    "/v1/messages/count_tokens": {"messages": MESSAGE_LIST, "system": [1, True, {}, [1]]},
    "/v1/embeddings": {"input": INPUT, "encoding_format": STRING, "dimensions": INTEGER},
    "/embedding": {"content": INPUT},
    "/v1/rerank": {
        "query": [*STRING, None], "documents": ["x", 1, {}, [1], [None], [[]]], "top_n": INTEGER,
    },
    "/tokenize": {
        "content": [1, True, None, {}, [None], [[]], [1.5]], "add_special": BOOLEAN,
        "with_pieces": BOOLEAN,
    },
    "/detokenize": {"tokens": ["x", 1, None, {}, ["x"], [1.5], [None], [[1]], [HUGE]]},
    "/v1/audio/speech": {"input": [1, True, None, [], {}], "voice": CHOICE, "speed": NUMBER},
    "/v1/images/generations": {
        "prompt": [1, True, None, [], {}], "n": [*INTEGER, 0], "size": STRING,
    },
    "/api/chat": {
        "messages": [m for m in MESSAGE_LIST if m not in (None, [])], "tools": OBJECTS,
        "stream": BOOLEAN, "options": OBJECT, "keep_alive": [[], {}, "soon"], "format": [1, True],
        "think": [1.5, [], {}, "perhaps"], "logprobs": BOOLEAN,
    },
    "/api/generate": {
        "prompt": STRING, "suffix": STRING, "system": STRING, "raw": BOOLEAN, "stream": BOOLEAN,
        "images": ["x", 1, {}, [1], [None]], "options": [*OBJECT, {"num_ctx": "x"}],
    },
    "/api/embed": {"input": [1, True, {}, [1], [None]], "dimensions": ["x", 1.5, [], {}]},
    "/api/embeddings": {"prompt": STRING},
}  # fmt: skip
NO_NAMES: list[Any] = [None, "", 1, True, [], {}, ["m"], {"id": "m"}]


def wrong_types() -> Iterator[Case]:
    for path, fields in WRONG.items():
        for name, values in fields.items():
            for value in values:
                shown = json.dumps(value)[:40]
                yield post(f"{name} is {shown}", path, good(path, **{name: value}))
        for value in NO_NAMES:
            # Where there is one model only, llama.cpp's own clients need not name it.
            if value is not None or path.startswith(("/v1/chat", "/v1/comp", "/v1/mess", "/api")):
                yield post(f"model is {value!r}", path, good(path, model=value))
