"""AnswerSoFar of the APIs whose events have names: Messages and Responses. Pure."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.answer_so_far import AnswerSoFar, Json, data_event


class MessagesSoFar(AnswerSoFar):
    """Of Anthropic's `/v1/messages`."""

    def __init__(self, model: str, prompt: int | None) -> None:
        super().__init__(model, prompt)
        self._message: Json = {
            "id": "msg_0", "type": "message", "role": "assistant", "content": [], "model": model,
            "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": prompt or 0, "output_tokens": 0},
        }  # fmt: skip
        self._blocks: dict[int, Json] = {}
        self._inputs: dict[int, str] = {}  # of tools, as text
        self._open: set[int] = set()
        self._has_begun = False

    def take(self, event: Json) -> None:
        index = event.get("index", 0)
        match event.get("type"):
            case "message_start":
                self._message |= event.get("message") or {}
                self._has_begun = True
            case "content_block_start":
                self._blocks[index] = {**(event.get("content_block") or {})}
                self._open.add(index)
            case "content_block_delta":
                self._add(index, event.get("delta") or {})
            case "content_block_stop":
                self._open.discard(index)
            case "message_delta":
                self._message |= event.get("delta") or {}
                self._message["usage"] = {
                    **self._message.get("usage", {}),
                    **(event.get("usage") or {}),
                }

    def _add(self, index: int, delta: Json) -> None:
        block = self._blocks.setdefault(index, {"type": "text", "text": ""})
        if "partial_json" in delta:
            self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
        for name in ("text", "thinking", "signature"):
            if name in delta:
                block[name] = block.get(name, "") + delta[name]

    def ending(self) -> bytes:
        events = []
        if not self._has_begun:
            start = {"type": "message_start", "message": self._message}
            events.append(data_event(start, "message_start"))
        for index in sorted(self._open):
            stop = {"type": "content_block_stop", "index": index}
            events.append(data_event(stop, "content_block_stop"))
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {"output_tokens": self.tokens},
        }
        events.append(data_event(delta, "message_delta"))
        events.append(data_event({"type": "message_stop"}, "message_stop"))
        return b"".join(events)

    def whole(self) -> bytes:
        message = {**self._message}
        if message.get("stop_reason") is None:
            message["stop_reason"] = "max_tokens"
            message["usage"] = {**message.get("usage", {}), "output_tokens": self.tokens}
        message["content"] = [b for i in sorted(self._blocks) if (b := self._block(i)) is not None]
        return msgspec.json.encode(message)

    def _block(self, index: int) -> Json | None:
        """None: a tool's input that was cut."""
        block = self._blocks[index]
        if block.get("type") != "tool_use":
            return block
        text = self._inputs.get(index, "")
        read = decode_or_none(text.encode(), dict[str, Any]) if text else block.get("input") or {}
        if read is None or index in self._open:
            return None
        return {**block, "input": read}


class ResponsesSoFar(AnswerSoFar):
    """Of OpenAI's `/v1/responses`."""

    def __init__(self, model: str, prompt: int | None) -> None:
        super().__init__(model, prompt)
        self._response: Json = {
            "id": "resp_0", "object": "response", "created_at": int(time.time()), "model": model,
            "status": "in_progress", "output": [],
        }  # fmt: skip
        self._items: dict[str, Json] = {}
        self._open: set[str] = set()
        self._has_begun = self._is_over = False
        self._number: int | None = None

    def take(self, event: Json) -> None:
        if isinstance(event.get("sequence_number"), int):
            self._number = event["sequence_number"]
        kind = str(event.get("type", ""))
        if isinstance(event.get("response"), dict):
            self._response |= event["response"]
            self._has_begun = True
            self._is_over = kind.removeprefix("response.") in ("completed", "incomplete", "failed")
        elif kind == "response.output_item.added":
            item = {**event["item"]}
            self._items[item.get("id", "")] = item
            self._open.add(item.get("id", ""))
        elif kind == "response.output_item.done":
            item = event["item"]
            self._items[item.get("id", "")] = item
            self._open.discard(item.get("id", ""))
        elif (known := self._items.get(event.get("item_id", ""))) is not None:
            self._add(known, kind.removeprefix("response."), event)

    def _add(self, item: Json, kind: str, event: Json) -> None:
        if kind == "content_part.added":
            item["content"] = [*(item.get("content") or ()), {**event["part"]}]
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            if not item.get("content"):
                kind_of = kind.removesuffix(".delta")
                item["content"] = [{"type": kind_of, "text": ""}]
            part = item["content"][-1]
            part["text"] = part.get("text", "") + event.get("delta", "")
        elif kind == "function_call_arguments.delta":
            item["arguments"] = item.get("arguments", "") + event.get("delta", "")

    def _incomplete(self) -> Json:
        for number in self._open:
            self._items[number]["status"] = "incomplete"
        usage = self.usage("input_tokens", "output_tokens") or None
        return {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [*self._items.values()],
            "usage": self._response.get("usage") or usage,
        }

    def ending(self) -> bytes:
        events = []
        if not self._has_begun:
            events.append(self._event("created", {"response": self._response}))
        response = self._incomplete()
        for place, (number, item) in enumerate(self._items.items()):
            if number not in self._open:
                continue
            where = {"item_id": number, "output_index": place}
            content = item.get("content") or ()
            for index, part in enumerate(content):
                if part.get("type") == "output_text":
                    at = {**where, "content_index": index}
                    events.append(self._event("output_text.done", {**at, "text": part["text"]}))
                    events.append(self._event("content_part.done", {**at, "part": part}))
            # A call's arguments are not said to be done: they are not.
            done = {"output_index": place, "item": item}
            events.append(self._event("output_item.done", done))
        events.append(self._event("incomplete", {"response": response}))
        return b"".join(events)

    def _event(self, name: str, fields: Json) -> bytes:
        number = {}
        if self._number is not None:
            self._number += 1
            number = {"sequence_number": self._number}
        kind = f"response.{name}"
        return data_event({"type": kind, **number, **fields}, kind)

    def whole(self) -> bytes:
        return msgspec.json.encode(self._response if self._is_over else self._incomplete())
