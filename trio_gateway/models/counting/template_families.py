"""What llama.cpp changes in a chat for some families of templates, before and after rendering.

A family is known by words in the template. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

from trio_gateway.models.counting.chat_shape import Message

# What a model without a template gets.
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Where a template knows of thoughts, the engine puts some before an answer that it goes on with.
_THOUGHTS = ("think", "reason", "<|channel", ">>>all", "<|tool_calls_section_begin|>")

# By such marks around thoughts, engines find that a template can think, and have it do so.
_MARKED_THOUGHTS = re.compile(r"think[a-z:]*\|?>|<\|channel", re.IGNORECASE)


def marks_thoughts(source: str) -> bool:
    return _MARKED_THOUGHTS.search(source) is not None


def may_put_thoughts_first(source: str) -> bool:
    return any(word in source for word in _THOUGHTS) or _is_lfm2(source)


def is_harmony(source: str) -> bool:
    """Templates of gpt-oss and its kin."""
    return "<|channel|>" in source or "chat_format=llm-jp" in source


def patched(source: str) -> str:
    """Without two checks that refuse chats, which engines leave out as well."""
    if is_harmony(source):
        source = _without_check(source, '"<|channel|>analysis<|message|>" in message.content or')
    if "[TOOL_CALLS]" in source:
        source = _without_check(source, "(message['content'] is none or")
    return source


def _without_check(source: str, condition: str) -> str:
    start = "{%- if " + condition
    found = source.find(start)
    end = source.find("%}", found)
    if found < 0 or end < 0:
        return source
    return source[:found] + "{%- if false " + source[end:]


def adjusted(source: str, messages: list[Message]) -> list[Message]:
    """The messages as its family gets them."""
    if _is_ministral(source):
        return [_with_thoughts_as_part(message) for message in messages]
    if is_harmony(source):
        return [_with_thinking(message, without_content=True) for message in messages]
    if _is_lfm2(source):
        return [_with_thinking(message, without_content=False) for message in messages]
    if "You have access to the following functions in JSONSchema format" in source:  # StepFun
        return [_trimmed(message) for message in messages]
    if _is_deepseek_v4(source):
        return _in_the_order_of_calls(messages)
    if "'<|tool_call>call:'" in source and "{#- OpenAI Chat Completions:" not in source:
        return _with_results_in_turns(messages)  # the first templates of Gemma 4
    return messages


def extra_variables(source: str, schema: object) -> dict[str, Any]:
    """Variables of its family alone."""
    return {"response_format": schema} if schema is not None and _is_deepseek_v4(source) else {}


def finished(source: str, prompt: str, *, asks: bool) -> str:
    """The prompt with what its family gets behind it."""
    if asks and "'<|tool_call>call:'" in source and prompt.endswith("<turn|>\n"):
        return prompt + "<|turn>model\n"
    return prompt


def _is_lfm2(source: str) -> bool:
    return "<|tool_list_start|>" in source or "List of tools: [" in source


def _is_ministral(source: str) -> bool:
    has_all = all(word in source for word in ("[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[ARGS]"))
    return has_all and "[CALL_ID]" not in source


def _is_deepseek_v4(source: str) -> bool:
    has_all = all(word in source for word in ("dsml_token", "DSML", "tool_calls"))
    return has_all and "function_calls" not in source


def _with_thinking(message: Message, *, without_content: bool) -> Message:
    if "reasoning_content" not in message:
        return message
    thinking = {**message, "thinking": message["reasoning_content"]}
    if without_content and message.get("tool_calls"):
        del thinking["content"]
    return thinking


def _with_thoughts_as_part(message: Message) -> Message:
    if message["role"] not in {"system", "assistant"}:
        return message
    parts: list[Message] = []
    changed = dict(message)
    if (thoughts := changed.pop("reasoning_content", None)) is not None:
        parts.append({"type": "thinking", "thinking": thoughts})
    content = message["content"]
    parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {**changed, "content": parts}


def _trimmed(message: Message) -> Message:
    changed = dict(message)
    content = message["content"]
    if isinstance(content, str):
        changed["content"] = content.strip()
    else:
        changed["content"] = [{**part, "text": part["text"].strip()} for part in content]
    if "reasoning_content" in message:
        changed["reasoning_content"] = message["reasoning_content"].strip()
    return changed


def _in_the_order_of_calls(messages: list[Message]) -> list[Message]:
    """The results of an assistant's calls, up to its next message, as the calls came."""
    ordered = list(messages)
    order: dict[str, int] = {}
    results: list[int] = []

    def sort() -> None:
        found = sorted((ordered[i] for i in results), key=lambda m: order.get(_id_of(m), 0))
        for place, message in zip(results, found, strict=True):
            ordered[place] = message
        results.clear()

    for place, message in enumerate(messages):
        if message["role"] == "tool":
            results.append(place)
        elif message["role"] != "user":
            if order:
                sort()
            results.clear()
            if message.get("tool_calls"):
                order = {call.get("id", ""): i for i, call in enumerate(message["tool_calls"])}
    if order:
        sort()
    return ordered


def _id_of(result: Message) -> str:
    return str(result.get("tool_call_id", ""))


def _with_results_in_turns(messages: list[Message]) -> list[Message]:
    """A call, its results and the answer after them as one message of the assistant."""
    made: list[Message] = []
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        calls = message.get("tool_calls") if message["role"] == "assistant" else None
        if not calls:
            made.append(message)
            continue
        turn: Message = {"role": "assistant", "tool_calls": calls}
        responses: list[Message] = []
        while place < len(messages) and messages[place]["role"] == "tool":
            responses.append(_response(messages[place], calls, len(responses)))
            place += 1
        if responses:
            turn["tool_responses"] = responses
        if place < len(messages) and _is_plain_answer(messages[place]):
            turn["content"] = messages[place]["content"]
            place += 1
        if "reasoning_content" in message:
            turn["reasoning_content"] = message["reasoning_content"]
        made.append(turn)
    return made


def _is_plain_answer(message: Message) -> bool:
    return bool(
        message["role"] == "assistant" and not message.get("tool_calls") and message["content"]
    )


def _response(result: Message, calls: list[Message], index: int) -> Message:
    name = calls[index]["function"]["name"] if index < len(calls) else ""
    content = result["content"]
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError:
            content = result["content"]
    return {"name": name or result.get("tool_call_id", ""), "response": content}
