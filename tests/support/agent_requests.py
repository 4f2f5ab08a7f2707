"""Requests as agents and chat pages send them: their shapes and sizes, with filler for texts.

In the kinds of tools, messages and parts, their order and sizes as Codex 0.171, Claude Code,
opencode, Qwen Code, Open WebUI and aider have them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]

_WORDS = (
    *("the", "file", "has", "more", "lines", "than", "one", "can", "read", "at", "once", "so"),
    *("look", "for", "what", "you", "need", "first", "and", "then", "open", "it", "there"),
)


class AgentRequest(NamedTuple):
    """`endpoint`: the name of its row. `is_taken`: a llama-server does not refuse it."""

    name: str
    endpoint: str
    body: Json
    is_taken: bool = True


def filler(size: int, begin: int = 0) -> str:
    """A text of about so many bytes."""
    text = " ".join(_WORDS[(begin + i * 7) % len(_WORDS)] for i in range(size // 5 + 1))
    return text[:size]


def schema(fields: int, begin: int = 0) -> Json:
    """JSON Schema of a tool's arguments, as the usual libraries write it."""
    names = [f"{_WORDS[(begin + i) % len(_WORDS)]}_{i}" for i in range(fields)]
    kinds: Sequence[Json] = (
        {"type": "string"},
        {"type": "integer", "minimum": 0},
        {"type": "array", "items": {"type": "string"}},
        {"type": "boolean", "default": False},
        {"enum": ["one", "two"]},
    )
    properties = {
        name: {**kinds[i % len(kinds)], "description": filler(60 + 9 * i, begin + i)}
        for i, name in enumerate(names)
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "required": names[: fields // 2],
        "additionalProperties": False,
    }


def function(number: int, described: int, fields: int) -> Json:
    """Name, description and parameters: what all APIs have of a tool, in words of their own."""
    name = f"{_WORDS[number % len(_WORDS)]}_tool_{number}"
    description = filler(described, number)
    return {"name": name, "description": description, "parameters": schema(fields, number)}


def _functions(count: int, described: int, fields: int) -> list[Json]:
    sizes = ((described * (1 + i % 4) // 2, fields * (1 + i % 3) // 2) for i in range(count))
    return [function(i, size, number) for i, (size, number) in enumerate(sizes)]


def _picture(size: int) -> str:
    return "data:image/png;base64," + base64.b64encode(bytes(size)).decode()


# -- Codex: the Responses API -------------------------------------------------------------------


def _codex_tools() -> list[Json]:
    functions: list[Json] = [
        {"type": "function", "strict": False, **tool} for tool in _functions(9, 300, 4)
    ]
    grammar = {"type": "grammar", "syntax": "lark", "definition": filler(800)}
    inner = [{"type": "function", **tool} for tool in _functions(4, 200, 3)]
    namespace = {
        "type": "namespace",
        "name": "files",
        "description": filler(200),
        "tools": inner,
    }
    return [
        *functions,
        {"type": "custom", "name": "apply_patch", "description": filler(600), "format": grammar},
        {"type": "web_search", "external_web_access": False},
        namespace,
        {"type": "image_generation", "output_format": "png"},
        {"type": "tool_search", "description": filler(400), "parameters": schema(2)},
    ]


def _codex(*items: Json, tools: list[Json] | None = None) -> Json:
    first = [
        {"type": "message", "role": "developer",
         "content": [{"type": "input_text", "text": filler(size, size)} for size in (3200, 900)]},
        {"type": "message", "role": "user",
         "content": [{"type": "input_text", "text": filler(size, size)} for size in (1800, 400)]},
        {"type": "message", "role": "user",
         "content": [{"type": "input_text", "text": filler(90)}]},
    ]  # fmt: skip
    return {
        "instructions": filler(12_000),
        "input": [*first, *items],
        "tools": _codex_tools() if tools is None else tools,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0",
        "text": {"verbosity": "low"},
        "client_metadata": {"x": "y"},
    }


def _codex_turn(number: int) -> list[Json]:
    call = f"call_{number}"
    return [
        {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "",
         "content": [{"type": "reasoning_text", "text": filler(500, number)}]},
        {"type": "message", "role": "assistant", "id": f"msg_{number}", "phase": "commentary",
         "content": [{"type": "output_text", "text": filler(120, number)}]},
        {"type": "function_call", "id": f"fc_{number}", "name": "the_tool_0", "call_id": call,
         "arguments": f'{{"the_0":"{filler(80, number)}","workdir":"/x"}}'},
        {"type": "function_call", "name": "file_tool_1", "call_id": f"{call}b", "arguments": "{}"},
        {"type": "function_call_output", "call_id": call, "output": filler(2500, number)},
        {"type": "function_call_output", "call_id": f"{call}b",
         "output": [{"type": "input_text", "text": filler(size, number)} for size in (90, 300)]},
    ]  # fmt: skip


_CODEX_ENDS: list[Json] = [
    {"type": "message", "role": "assistant", "phase": "final_answer",
     "content": [{"type": "output_text", "text": filler(700)}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": filler(60)}]},
]  # fmt: skip
_CUSTOM_CALL: list[Json] = [
    {"type": "custom_tool_call", "call_id": "p", "name": "apply_patch", "input": filler(900)},
    {"type": "custom_tool_call_output", "call_id": "p", "output": filler(60)},
]

CODEX = [
    AgentRequest("codex", "responses", _codex()),
    AgentRequest("codex, web search alone", "responses",
                 {"input": filler(12_000), "tools": [{"type": "web_search"}]}),
    AgentRequest("codex, after three turns", "responses",
                 _codex(*_codex_turn(1), *_codex_turn(2), *_codex_turn(3), *_CODEX_ENDS)),
    AgentRequest("codex, in the middle of a turn", "responses", _codex(*_codex_turn(1))),
    AgentRequest("codex, no functions", "responses", _codex(tools=[{"type": "local_shell"}])),
    AgentRequest("codex, a patch by another engine", "responses",
                 _codex(*_CUSTOM_CALL, *_CODEX_ENDS), is_taken=False),
    AgentRequest("codex, a compacted history", "responses",
                 _codex({"type": "compaction", "encrypted_content": "x" * 2000}), is_taken=False),
    AgentRequest("codex, a picture", "responses",
                 _codex({"role": "user", "content": [
                     {"type": "input_image", "image_url": _picture(9000)}]}), is_taken=False),
]  # fmt: skip


# -- Claude Code: the Messages API --------------------------------------------------------------

_CACHED: Json = {"cache_control": {"type": "ephemeral"}}
BILLING_LINE = "x-anthropic-billing-header: cc_version=2.1.1.abc; cc_entrypoint=cli; cch=12345;"
_SERVER_TOOLS: list[Json] = [
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {
        "type": "computer_20250124",
        "name": "computer",
        "display_width_px": 1,
        "display_height_px": 1,
    },
]


def _claude(*messages: Json, tools: Sequence[Json] = ()) -> Json:
    own = [
        {"name": tool["name"], "description": tool["description"],
         "input_schema": tool["parameters"]}
        for tool in _functions(18, 1500, 4)
    ]  # fmt: skip
    system = [
        {"type": "text", "text": BILLING_LINE},
        {"type": "text", "text": filler(60), **_CACHED},
        {"type": "text", "text": filler(14_000), **_CACHED},
    ]
    first = {"role": "user", "content": [
        {"type": "text", "text": f"<system-reminder>{filler(2500)}</system-reminder>"},
        {"type": "text", "text": filler(100), **_CACHED},
    ]}  # fmt: skip
    return {
        "system": system,
        "messages": [first, *messages],
        "tools": [*own, *tools],
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "metadata": {"user_id": "user_0"},
        "stream": True,
        "temperature": 1,
    }


def _claude_turn(number: int) -> list[Json]:
    use = f"toolu_{number}"
    said = [
        {"type": "thinking", "thinking": filler(400, number), "signature": "x" * 300},
        {"type": "redacted_thinking", "data": "x" * 500},
        {"type": "text", "text": filler(100, number)},
        {"type": "tool_use", "id": use, "name": "the_tool_0",
         "input": {"file": filler(40), "lines": [1, 2], "limit": None, "text": "é\n\"\\"}},
        {"type": "tool_use", "id": f"{use}b", "name": "file_tool_1", "input": {}},
    ]  # fmt: skip
    results = [
        {"type": "tool_result", "tool_use_id": use, "content": filler(3000, number)},
        {"type": "tool_result", "tool_use_id": f"{use}b", "is_error": True,
         "content": [{"type": "text", "text": filler(size, number)} for size in (50, 70)]},
        {"type": "text", "text": filler(200, number), **_CACHED},
    ]  # fmt: skip
    return [{"role": "assistant", "content": said}, {"role": "user", "content": results}]


_SEARCHED: list[Json] = [
    {"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [
            {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "x" * 900}
        ]},
        {"type": "text", "text": filler(300), "citations": [{"type": "x", "cited_text": "y"}]},
    ]},
    {"role": "user", "content": [
        {"type": "document", "source": {"type": "text", "data": filler(4000)}},
        {"type": "text", "text": filler(40)},
    ]},
]  # fmt: skip

CLAUDE_CODE = [
    AgentRequest("claude code", "messages", _claude()),
    AgentRequest("claude code, after two turns", "messages",
                 _claude(*_claude_turn(1), *_claude_turn(2))),
    AgentRequest("claude code, tools of Anthropic's", "messages", _claude(tools=_SERVER_TOOLS)),
    AgentRequest("claude code, a search and a document", "messages", _claude(*_SEARCHED)),
    AgentRequest("claude code, a topic", "messages",
                 {"system": [{"type": "text", "text": filler(700)}], "tools": [],
                  "max_tokens": 512, "stop_sequences": ["x"],
                  "messages": [{"role": "user", "content": filler(100)}]}),
    AgentRequest("claude code, a picture", "messages",
                 _claude({"role": "user", "content": [
                     {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                                  "data": "A" * 9000}}]}), is_taken=False),
]  # fmt: skip


# -- others: chat completions -------------------------------------------------------------------


def _chat_tools(count: int, described: int, fields: int) -> list[Json]:
    return [{"type": "function", "function": f} for f in _functions(count, described, fields)]


def _chat_turn(number: int) -> list[Json]:
    calls = [
        {"id": f"{number}{i}", "type": "function", "index": i,
         "function": {"name": "the_tool_0", "arguments": f'{{"the_0":"{filler(70, number)}"}}'}}
        for i in range(2)
    ]  # fmt: skip
    return [
        {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None,
         "reasoning_content": filler(300, number)},
        {"role": "tool", "tool_call_id": f"{number}0", "content": filler(1800, number)},
        {"role": "tool", "tool_call_id": f"{number}1",
         "content": [{"type": "text", "text": filler(400, number)}]},
        {"role": "assistant", "content": filler(250, number), "annotations": []},
        {"role": "user", "content": [{"type": "text", "text": filler(50, number), **_CACHED}]},
    ]  # fmt: skip


_SYSTEM: Json = {"role": "system", "content": filler(9000)}
_ASKS: Json = {"role": "user", "content": filler(200)}

CHATS = [
    AgentRequest("opencode", "chat/completions", {
        "messages": [_SYSTEM, {**_SYSTEM, "content": filler(1500)}, _ASKS, *_chat_turn(1)],
        "tools": _chat_tools(11, 1200, 4), "tool_choice": "auto", "max_tokens": 32_000,
        "stream": True, "stream_options": {"include_usage": True}}),
    AgentRequest("qwen code", "chat/completions", {
        "messages": [{**_SYSTEM, "content": [{"type": "text", "text": filler(20_000), **_CACHED}]},
                     _ASKS, *_chat_turn(1), *_chat_turn(2)],
        "tools": _chat_tools(16, 900, 5), "max_tokens": 8000, "metadata": {"sessionId": "0"},
        "temperature": 0, "top_p": 1, "stream": True}),
    AgentRequest("open webui", "chat/completions", {
        "messages": [{"role": "user", "content": filler(40)}], "stream": True,
        "tools": _chat_tools(36, 200, 3), "stream_options": {"include_usage": True}}),
    AgentRequest("open webui, with sources", "chat/completions", {
        "messages": [{"role": "system", "content": f"<context>{filler(12_000)}</context>"},
                     {"role": "user", "content": [{"type": "text", "text": filler(90)}]}]}),
    AgentRequest("aider", "chat/completions", {
        "messages": [_SYSTEM, {"role": "user", "content": filler(6000)},
                     {"role": "assistant", "content": "Ok."}, _ASKS], "temperature": 0}),
    AgentRequest("continue, an answer begun", "chat/completions", {
        "messages": [_ASKS, {"role": "assistant", "content": filler(60)}]}),
    AgentRequest("a hosted search", "chat/completions", {
        "messages": [_SYSTEM, _ASKS], "tools": [{"type": "web_search"}, *_chat_tools(3, 300, 2)],
    }, is_taken=False),
    AgentRequest("a custom tool", "chat/completions", {
        "messages": [_ASKS, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "custom", "custom": {"name": "x", "input": filler(500)}}]},
            {"role": "tool", "tool_call_id": "c", "content": filler(90)}],
        "tools": [{"type": "custom", "custom": {"name": "x", "description": filler(200)}}],
    }, is_taken=False),
    AgentRequest("parts of the Responses API", "chat/completions", {
        "messages": [{"role": "user", "content": [{"type": "input_text", "text": filler(900)}]}],
    }, is_taken=False),
    AgentRequest("a picture", "chat/completions", {
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": filler(90)},
            {"type": "image_url", "image_url": {"url": _picture(9000)}}]}],
    }, is_taken=False),
]  # fmt: skip

OLLAMA = [
    AgentRequest("open webui by Ollama", "api/chat", {
        "messages": [{"role": "system", "content": filler(900)},
                     {"role": "user", "content": filler(60)},
                     {"role": "assistant", "content": "", "thinking": filler(200), "tool_calls": [
                         {"function": {"name": "the_tool_0", "arguments": {"the_0": "é"}}}]},
                     {"role": "tool", "content": filler(700), "tool_name": "the_tool_0"}],
        "tools": _chat_tools(6, 200, 3), "options": {"num_ctx": 4096, "num_predict": 1},
        "keep_alive": "5m", "stream": False}),
    AgentRequest("Ollama's tools without a type", "api/chat", {
        "messages": [{"role": "user", "content": filler(60)}], "stream": False,
        "tools": [{"function": f} for f in _functions(3, 200, 3)],
        "options": {"num_predict": 1}}),
    AgentRequest("Ollama's generate", "api/generate", {
        "system": filler(500), "prompt": filler(1500), "stream": False,
        "options": {"num_predict": 1}}),
]  # fmt: skip

AGENT_REQUESTS = [*CODEX, *CLAUDE_CODE, *CHATS, *OLLAMA]
