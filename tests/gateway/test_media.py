"""Images, sounds and videos for a model whose engine has no projector: 400, and nothing starts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gguf
import pytest
import trio.testing

from tests.support.forms import TYPE, form, part
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.engine_types import ENGINE_TYPES, LLAMACPP
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.models.medium import Medium
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
URL = f"data:image/png;base64,{PNG}"
TEXT = {"type": "text", "text": "What is this?"}
SOURCE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
ITEM = {"type": "input_image", "image_url": URL}
RAW = {"prompt_string": "<__media__> What is this?", "multimodal_data": [PNG]}


def chat(kind: str, role: str = "user") -> dict[str, Any]:
    content = [TEXT, {"type": kind, kind: {"url": URL}}]
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": role, "content": content}]}


def items(*content: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, *content]}]}


RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t", "content": [TEXT, SOURCE]}],
}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": [ITEM]}
CHATS = (
    "/v1/chat/completions", "/chat/completions", "/v1/chat/completions/input_tokens",
    "/apply-template", "/gateway/explain",
)  # fmt: skip
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    *((path, chat("image_url"), "image", "messages[1].content[1]") for path in CHATS),
    *((path, chat("input_audio"), "audio", "messages[1].content[1]") for path in CHATS),
    ("/v1/chat/completions", chat("video_url"), "video", "messages[1].content[1]"),
    ("/v1/chat/completions", chat("input_video"), "video", "messages[1].content[1]"),
    ("/v1/chat/completions", chat("image_url", "tool"), "image", "messages[1].content[1]"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [TEXT, SOURCE]}]}, "image",
     "messages[0].content[1]"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [TEXT, ITEM]}]}, "image",
     "messages[0].content[1]"),
    ("/v1/responses", items({"type": "image_url", "image_url": {"url": URL}}), "image",
     "input[0].content[1]"),
    ("/v1/responses", items(ITEM), "image", "input[0].content[1]"),
    ("/v1/responses/input_tokens", items(ITEM), "image", "input[0].content[1]"),
    ("/v1/responses", {"input": [OUTPUT]}, "image", "input[0].output[0]"),
    ("/v1/messages", {"messages": [{"role": "user", "content": [SOURCE]}]}, "image",
     "messages[0].content[0]"),
    ("/v1/messages", {"messages": [RESULT]}, "image", "messages[0].content[0].content[1]"),
    ("/v1/messages/count_tokens", {"messages": [RESULT]}, "image", "messages[0].content"),
    ("/v1/completions", {"prompt": RAW}, "multimodal", "prompt.multimodal_data"),
    ("/v1/completions", {"prompt": ["x", RAW]}, "multimodal", "prompt[1].multimodal_data"),
    ("/completion", {"prompt": RAW}, "multimodal", "prompt.multimodal_data"),
    ("/completions", {"prompt": RAW}, "multimodal", "prompt.multimodal_data"),
    ("/v1/embeddings", {"input": [RAW]}, "multimodal", "input[0].multimodal_data"),
    ("/embedding", {"content": RAW}, "multimodal", "content.multimodal_data"),
    ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": [PNG]}]}, "image", ""),
    ("/api/generate", {"prompt": "x", "images": [PNG]}, "image", ""),
]  # fmt: skip
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [TEXT, {"type": "x"}]}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "image_url"}]}),
    ("/v1/messages", {"messages": [{"role": "user", "content": [TEXT, {"type": "document"}]}]}),
    ("/v1/messages", {"messages": [{"role": "user", "content": [TEXT, {"type": "image"}]}]}),
    ("/v1/responses", items()),
    ("/v1/completions", {"prompt": {"prompt_string": "x"}}),
    ("/v1/completions", {"prompt": [[1, 2], "x"]}),
]


@asynccontextmanager
async def serving(*args: str, **fields: Any) -> AsyncIterator[Stack]:
    made = model("m", variant(args=("-m", "m.gguf", *args)), **fields)
    async with running_stack(config(made)) as stack:
        stack.engines.load_s = 0.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        yield stack


def body_of(content: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 5, "stream": False, **content, **more}).encode()


@pytest.mark.parametrize(("path", "content", "medium", "where"), REFUSED)
async def test_a_model_without_a_projector_is_not_asked(
    autojump_clock: Clock, path: str, content: dict[str, Any], medium: str, where: str
) -> None:
    async with serving() as stack:
        answer = await stack.post(path, body_of(content))
        assert answer.status == 400
        error = json.loads(answer.content)["error"]
        message = error if isinstance(error, str) else error["message"]
        assert message.startswith(f"{medium} input is not supported")
        assert message.endswith(": m has no projector (--mmproj)")
        assert where in message
        assert not stack.engines.processes
        assert stack.engines.requests == []


@pytest.mark.parametrize(("path", "content"), TAKEN)
async def test_everything_else_is_for_the_engine_to_judge(
    autojump_clock: Clock, path: str, content: dict[str, Any]
) -> None:
    async with serving() as stack:
        assert (await stack.post(path, body_of(content))).status == 200


@pytest.mark.parametrize("args", [("--mmproj", "p.gguf"), ("-mm", "p.gguf"), ("-mmu", "https://x")])
async def test_a_model_with_a_projector_is_asked(
    autojump_clock: Clock, args: tuple[str, ...]
) -> None:
    async with serving(*args) as stack:
        for path, content, *_ in REFUSED:
            if not path.startswith("/api/"):
                assert (await stack.post(path, body_of(content))).status == 200, path


async def test_a_sound_to_be_transcribed_is_such_a_medium(autojump_clock: Clock) -> None:
    sound = form(part("model", b"m"), part("file", b"RIFF", '; filename="a.wav"'))
    for args, status in (((), 400), (("--mmproj", "p.gguf"), 200)):
        async with serving(*args) as stack:
            for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
                answer = await stack.post(path, sound, {"Content-Type": TYPE})
                assert answer.status == status


@pytest.mark.processes
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/gateway/explain", "/api/chat"])
async def test_a_large_body_is_refused_in_the_same_words(path: str) -> None:
    chats = next(content for place, content, *_ in REFUSED if place == path)
    async with serving() as stack:
        small = await stack.post(path, body_of(chats))
        large = await stack.post(path, body_of(chats, x=" " * 1_200_000))
        assert (small.status, large.status) == (400, 400)
        assert large.content == small.content
        assert not stack.engines.processes


def test_only_a_llama_server_is_known_to_have_none() -> None:
    def known(*args: str, **fields: Any) -> bool:
        engine = ENGINE_TYPES[fields.pop("engine", LLAMACPP.value)]
        made = model("m", variant(args=args, **fields), engine=engine)
        return MediaSupport().refusals(made).keys() == {*Medium}

    assert known("-m", "m.gguf")
    assert known("--model=m.gguf", "--no-mmproj")
    assert known("-hf", "org/m", "--no-mmproj")
    assert not known("-hf", "org/m")  # downloads a projector, if there is one
    assert not known("--ctx-size", "4096")  # nothing says which model it is
    assert not known("-m", "m.gguf", env={"LLAMA_ARG_MMPROJ": "p.gguf"})
    assert not known("-m", "m.gguf", engine="openai")
    both = (variant(args=("-m", "m.gguf")), variant(8192, args=("-m", "m.gguf", "-mm", "p.gguf")))
    assert MediaSupport().refusals(model("m", *both)) == {}


def write_projector(folder: Path, said: dict[str, bool]) -> Path:
    path = folder / "mmproj.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    for name, value in said.items():
        writer.add_bool(f"clip.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"has_vision_encoder": True}, {"audio"}),
        ({"has_vision_encoder": True, "has_audio_encoder": True}, set()),
        ({"has_vision_encoder": False, "has_audio_encoder": True}, {"image", "video"}),
        ({"has_audio_encoder": True}, {"image", "video"}),
        ({}, {"audio"}),  # of a time when all of them could see, and none could hear
    ],
)
async def test_a_projector_says_what_it_is_for(
    tmp_path: Path, said: dict[str, bool], refused: set[str]
) -> None:
    path = write_projector(tmp_path, said)
    made = model("m", variant(args=("-m", "m.gguf", "--mmproj", str(path))))
    subject = MediaSupport()
    assert subject.refusals(made) == {}
    await subject.read_files([made, model("n")])
    assert {medium.value for medium in subject.refusals(made)} == refused
    assert all("the projector of m has no" in why for why in subject.refusals(made).values())


@pytest.mark.processes
async def test_a_sound_for_a_projector_that_sees_is_refused(tmp_path: Path) -> None:
    path = write_projector(tmp_path, {"has_vision_encoder": True})
    async with serving("--mmproj", str(path)) as stack:
        await stack.gateway.media.read_files(stack.gateway.config.models)
        for more in ({}, {"x": " " * 1_200_000}):
            heard = await stack.post("/v1/chat/completions", body_of(chat("input_audio"), **more))
            assert heard.status == 400
            message = json.loads(heard.content)["error"]["message"]
            assert message.endswith("the projector of m has no audio encoder")
            seen = await stack.post("/v1/chat/completions", body_of(chat("image_url"), **more))
            assert seen.status == 200
