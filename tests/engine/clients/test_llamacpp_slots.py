"""LlamaCppEngine and its slots, against a small server that answers as llama-servers do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.support.llama import CHAT_BODY, NOT_FOUND, Llama, engine
from tests.support.sockets import read_request
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.engine.clients.facts import (
    EngineFacts,
    SlotFile,
    SlotRefused,
    SlotState,
    SlotUnanswered,
)
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine, LlamaCppKind
from trio_gateway.engine.errors import EngineDisconnected, ExchangeAborted

CHAT, COMPLETION = "chat/completions", "completions"
TIMEOUT_S = 10.0

SAVE, RESTORE, ERASE = (f"/slots/2?action={a}" for a in ("save", "restore", "erase"))
SAVED = {
    "id_slot": 2,
    "filename": "a.tmp",
    "n_saved": 3198,
    "n_written": 73733860,
    "timings": {"save_ms": 29.2},
}
RESTORED = {
    "id_slot": 2,
    "filename": "a.tmp",
    "n_restored": 3198,
    "n_read": 73733860,
    "timings": {"restore_ms": 11.4},
}
NO_SLOTS = {
    "error": {
        "code": 501,
        "message": "This server does not support slots action. Start it with `--slot-save-path`",
        "type": "not_supported_error",
    }
}
NO_SUCH_FILE = {
    "error": {
        "code": 400,
        "message": "Unable to restore slot, invalid slot save file",
        "type": "invalid_request_error",
    }
}
NO_ANSWER = "the engine gave no answer"
NO_NUMBERS = "the engine's answer has no numbers of tokens and bytes"


def props(slots: int = 4, context: int = 4096, **fields: Any) -> tuple[int, Any]:
    return 200, {
        "total_slots": slots,
        "default_generation_settings": {"n_ctx": context},
        **fields,
    }


# -- facts -----------------------------------------------------------------------------------


async def test_an_engine_says_which_model_it_runs_and_which_build_it_is() -> None:
    said = props(1, 2048, model_path="/m/x.gguf", build_info="b11434-abc")
    async with engine(Llama({"/props": said})) as client:
        facts = await client.read_facts(TIMEOUT_S)
    assert facts == EngineFacts(1, 2048, "/m/x.gguf", "b11434-abc")


@pytest.mark.parametrize("value", ["", None, 7, ["x"]], ids=repr)
async def test_a_model_or_a_build_that_is_no_text_is_not_known(value: Any) -> None:
    said = props(1, 2048, model_path=value, build_info=value)
    async with engine(Llama({"/props": said})) as client:
        assert await client.read_facts(TIMEOUT_S) == EngineFacts(1, 2048)


@pytest.mark.parametrize(
    ("slots", "context"),
    [
        ([{"id": 0, "n_ctx": 4096}], 4096),
        ([{"id": 0, "n_ctx": 2048}, {"id": 1, "n_ctx": 2048}], 2048),
        ([{"id": 0, "n_ctx": 8192}], 4096),
        ([{"id": 0, "n_ctx": 3000}, {"id": 1, "n_ctx": 2000}, {"id": 2}], 2000),
        ([{"id": 0, "n_ctx": 0}, {"id": 1, "n_ctx": "many"}], 4096),
        ([7, None, "x"], 4096),
        ([], 4096),
        ({"id": 0, "n_ctx": 2048}, 4096),
    ],
    ids=["same", "split", "larger", "smallest", "no numbers", "no slots", "none", "no list"],
)
async def test_one_request_gets_no_more_than_the_smallest_slot_holds(
    slots: Any, context: int
) -> None:
    async with engine(Llama({"/props": props(), "/slots": (200, slots)})) as client:
        assert (await client.read_facts(TIMEOUT_S)).context == context


async def test_slots_say_the_context_where_the_properties_do_not() -> None:
    answers = {"/props": (200, {"total_slots": 2}), "/slots": (200, [{"id": 0, "n_ctx": 2048}])}
    async with engine(Llama(answers)) as client:
        assert await client.read_facts(TIMEOUT_S) == EngineFacts(2, 2048)


@pytest.mark.parametrize(
    "answer", [(501, NO_SLOTS), NOT_FOUND, (200, b"[{")], ids=[501, 404, "cut"]
)
async def test_an_engine_that_shows_no_slots_is_believed_its_properties(
    answer: tuple[int, Any],
) -> None:
    async with engine(Llama({"/props": props(), "/slots": answer})) as client:
        assert await client.read_facts(TIMEOUT_S) == EngineFacts(4, 4096)


# -- what requests share ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "slots", "context", "shared"),
    [
        (["-c", "4096"], 4, 4096, 4096),
        (["-c", "4096", "-np", "1"], 1, 4096, None),
        (["-c", "4096", "-np", "2"], 2, 2048, None),
        (["-c", "4096", "-np", "2", "-kvu"], 2, 4096, 4096),
        (["--ctx-size=4096", "--parallel=8"], 8, 512, None),
        (["-c", "4100", "-np", "2"], 2, 2304, None),  # 2,050 each, rounded up
        ([], 4, 8192, 8192),
        (["-c", "0"], 4, 8192, 8192),
        (["-np", "2"], 2, 4096, None),
        (["-np", "2", "--kv-unified"], 2, 8192, 8192),
        (["-c", "16384", "-np", "2", "-kvu"], 2, 8192, None),  # as much as it was trained for, each
        (["-c", "32768", "-np", "8", "-kvu"], 8, 8192, 32768),  # of which one gets a part
        (["-c", "65536", "-np", "2", "-kvu"], 2, 40960, 65536),
        (["-c", "4096", "-np", "3"], 3, 1365, None),
        (["-c", "${CONTEXT}"], 4, 8192, 8192),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else str(v),
)
def test_slots_share_one_cache_or_have_one_each(
    args: list[str], slots: int, context: int, shared: int | None
) -> None:
    facts = EngineFacts(slots=slots, context=context)
    assert LlamaCppKind().shared_tokens(EngineArgs(args), facts) == shared


@pytest.mark.parametrize(
    ("args", "slots", "cure"),
    [
        (["-c", "4096"], 1, "raise -c to 65536, or lower the variant's `context` to 4096"),
        (["-c", "4096", "-np", "4", "-kvu"], 4, "raise -c to 65536, or lower"),
        (["-c", "65536"], 1, "-c allows 65536, so the limit is what the model was trained for, or"),
        (["--ctx-size=65536", "-np", "4", "-kvu"], 4, "so the limit is what the model was trained"),
        (["-c", "262144", "-np", "4"], 4, "-c allows 65536, so the limit is what the model was"),
        (["-c", "16384", "-np", "4"], 4, "-c is split between 4 slots; use -np 1 for one request"),
        (
            [],
            1,
            "without -c it takes what the model was trained for, or what fits into memory;",
        ),
        (["-np", "4"], 4, "set -c to 262144, or lower the variant's `context` to 4096"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_to_do_about_a_context_that_is_smaller_than_declared(
    args: list[str], slots: int, cure: str
) -> None:
    kind, given, facts = LlamaCppKind(), EngineArgs(args), EngineFacts(slots=slots, context=4096)
    said = kind.context_cure(65536, given, facts, kind.shared_tokens(given, facts))
    assert cure in said
    assert ("raise -c" in said) == (given.context is not None and "limit is" not in said)


@pytest.mark.parametrize("facts", [EngineFacts(), EngineFacts(slots=4), EngineFacts(context=4096)])
def test_of_an_engine_that_says_little_it_is_not_known_that_its_slots_share(
    facts: EngineFacts,
) -> None:
    assert LlamaCppKind().shared_tokens(EngineArgs(["-c", "4096"]), facts) is None


# -- where slots are saved -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "folder"),
    [
        ([], None),
        (["-m", "x"], None),
        (["--slot-save-path", "/slots"], "/slots"),
        (["--slot-save-path=/slots/"], "/slots/"),
        (["--slot-save-path", "a", "--slot-save-path", "b"], "b"),
    ],
    ids=str,
)
def test_the_folder_of_slots_is_read_from_the_arguments(
    args: list[str], folder: str | None
) -> None:
    assert LlamaCppKind().slot_folder(EngineArgs(args)) == folder


@pytest.mark.parametrize(
    "binary",
    ["llama-server", "/opt/llama/bin/llama-server", "/v/bin/trio-gateway-llama-server"],
)
def test_a_llama_server_is_given_a_folder_for_slots(binary: str) -> None:
    added = ["--slot-save-path", "/cache/kv"]
    assert LlamaCppKind().slot_folder_args(binary, "/cache/kv") == added
    assert LlamaCppKind().slot_folder(EngineArgs(added)) == "/cache/kv"


@pytest.mark.parametrize("binary", ["docker", "/llama-server/run.sh", "vllm", "ollama"])
def test_another_program_is_given_none_as_it_may_not_know_the_option(binary: str) -> None:
    assert LlamaCppKind().slot_folder_args(binary, "/cache/kv") == []


# -- which slots there are -------------------------------------------------------------------


async def test_slots_say_how_long_their_conversations_are() -> None:
    slots = [
        {"id": 0, "n_ctx": 4096, "is_processing": False, "n_prompt_tokens": 3198},
        {"id": 1, "n_ctx": 4096, "is_processing": False},
        {"id": 2, "n_ctx": 4096, "n_prompt_tokens": 0},
        {"id": 3, "n_ctx": 4096, "n_prompt_tokens": "many"},
    ]
    async with engine(Llama({"/slots": (200, slots)})) as client:
        found = await client.read_slots(TIMEOUT_S)
    assert found == [SlotState(0, 3198), *(SlotState(i, None) for i in (1, 2, 3))]


async def test_what_has_no_number_is_no_slot() -> None:
    slots = [{"n_prompt_tokens": 5}, {"id": "0"}, [], None, {"id": 7}]
    async with engine(Llama({"/slots": (200, slots)})) as client:
        assert await client.read_slots(TIMEOUT_S) == [SlotState(7, None)]


@pytest.mark.parametrize(
    "answer",
    [(501, NO_SLOTS), (500, b""), NOT_FOUND, (200, {}), (200, b"[{"), (200, b'["\xff"]')],
    ids=["501", "500", "404", "no list", "cut", "bytes"],
)
async def test_an_engine_that_does_not_show_its_slots_says_nothing(answer: tuple[int, Any]) -> None:
    async with engine(Llama({"/slots": answer})) as client:
        assert await client.read_slots(TIMEOUT_S) is None


# -- saving and restoring --------------------------------------------------------------------


async def test_a_slot_is_saved_under_a_name_of_the_gateway_s() -> None:
    llama = Llama({SAVE: (200, SAVED)})
    async with engine(llama) as client:
        assert await client.save_slot(2, "a.tmp", TIMEOUT_S) == SlotFile(3198, 73733860, 29.2)
    assert llama.asked == [SAVE]
    assert msgspec.json.decode(llama.bodies[0]) == {"filename": "a.tmp"}


async def test_a_slot_is_saved_although_the_requests_were_ended() -> None:
    """As at the end of `shutdown_grace`, and when a model is unloaded by force."""
    async with engine(Llama({SAVE: (200, SAVED)})) as client:
        client.abort_requests(ExchangeAborted("the gateway is stopping"))
        with pytest.raises(ExchangeAborted):
            async with client.forward_request("POST", "/v1/chat/completions", [], CHAT_BODY):
                pass
        assert (await client.save_slot(2, "a.tmp", TIMEOUT_S)).tokens == 3198
        client.abort_all(EngineDisconnected("it is gone"))
        with pytest.raises(SlotUnanswered):
            await client.save_slot(2, "a.tmp", TIMEOUT_S)


async def test_a_slot_is_restored_from_that_name() -> None:
    llama = Llama({RESTORE: (200, RESTORED)})
    async with engine(llama) as client:
        assert await client.restore_slot(2, "a.tmp", TIMEOUT_S) == SlotFile(3198, 73733860, 11.4)
    assert llama.asked == [RESTORE]
    assert msgspec.json.decode(llama.bodies[0]) == {"filename": "a.tmp"}


@pytest.mark.parametrize("timings", [None, {}, [], {"save_ms": "fast"}], ids=repr)
async def test_a_save_that_does_not_say_how_long_it_took_is_timed_from_here(timings: Any) -> None:
    async with engine(Llama({SAVE: (200, {**SAVED, "timings": timings})})) as client:
        saved = await client.save_slot(2, "a.tmp", TIMEOUT_S)
    assert (saved.tokens, saved.size_bytes) == (3198, 73733860)
    assert 0 < saved.took_ms < TIMEOUT_S * 1000


async def test_a_slot_is_erased() -> None:
    llama = Llama({ERASE: (200, {"id_slot": 2, "n_erased": 3198})})
    async with engine(llama) as client:
        await client.erase_slot(2, TIMEOUT_S)
    assert (llama.asked, llama.bodies) == ([ERASE], [b"{}"])


REFUSALS = [
    ((501, NO_SLOTS), NO_SLOTS["error"]["message"]),
    ((400, NO_SUCH_FILE), NO_SUCH_FILE["error"]["message"]),
    ((500, b"it broke"), "the engine answered with status 500"),
    ((400, []), "the engine answered with status 400"),
    ((400, {"error": "no"}), "the engine answered with status 400"),
    ((503, {"error": {"code": 503}}), "the engine answered with status 503"),
    ((404, b"\xff\xfe"), "the engine answered with status 404"),
    ((200, {"n_saved": 3198}), NO_NUMBERS),
    ((200, {**SAVED, "n_saved": "3198"}), NO_NUMBERS),
    ((200, {**RESTORED, "n_read": None}), NO_NUMBERS),
    ((200, [SAVED]), NO_NUMBERS),
    ((200, b'{"n_saved":'), NO_ANSWER),
    ((200, b"[" * 100_000), NO_ANSWER),
]


@pytest.mark.parametrize(("answer", "why"), REFUSALS, ids=lambda v: repr(v)[:40])
async def test_any_other_answer_refuses_and_says_why(answer: tuple[int, Any], why: Any) -> None:
    async with engine(Llama(dict.fromkeys((SAVE, RESTORE, ERASE), answer))) as client:
        with pytest.raises(SlotRefused) as saving:
            await client.save_slot(2, "a.tmp", TIMEOUT_S)
        with pytest.raises(SlotRefused) as restoring:
            await client.restore_slot(2, "a.tmp", TIMEOUT_S)
        await client.erase_slot(2, TIMEOUT_S)  # never raises
    assert str(saving.value) == str(restoring.value) == why
    # Whether the engine did it nevertheless is then not known.
    unanswered = {isinstance(e.value, SlotUnanswered) for e in (saving, restoring)}
    assert unanswered == {why == NO_ANSWER}


async def refused_by(client: LlamaCppEngine, timeout_s: float = TIMEOUT_S) -> set[str]:
    """How all actions on slots end at a client that gets no answers."""
    reasons = set()
    for act in (client.save_slot, client.restore_slot):
        with pytest.raises(SlotUnanswered) as refused:
            await act(2, "a.tmp", timeout_s)
        reasons.add(str(refused.value))
    await client.erase_slot(2, timeout_s)
    assert await client.read_slots(timeout_s) is None
    assert await client.read_facts(timeout_s) == EngineFacts()
    assert await client.tokenize_request(CHAT, CHAT_BODY, timeout_s) is None
    return reasons


async def test_a_connection_that_is_lost_is_no_answer() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await read_request(stream)

    async with engine(hang_up) as client:
        assert await refused_by(client) == {NO_ANSWER}


async def test_an_answer_that_breaks_off_is_none() -> None:
    async def break_off(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"n_saved":3198,')

    async with engine(break_off) as client:
        assert await refused_by(client) == {NO_ANSWER}


async def test_an_engine_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with engine(hang) as client:
        assert await refused_by(client, timeout_s=0.05) == {NO_ANSWER}


async def test_an_engine_that_went_away_has_no_slots_left() -> None:
    async with engine(Llama({SAVE: (200, SAVED)})) as client:
        await client.aclose()
        assert await refused_by(client) == {NO_ANSWER}


# -- what a conversation is told by ----------------------------------------------------------


async def test_a_chat_s_tokens_are_those_of_the_prompt_that_the_template_makes_of_it() -> None:
    llama = Llama({"/apply-template": (200, {"prompt": "<|im_start|>user one two"})})
    async with engine(llama) as client:
        assert await client.tokenize_request(CHAT, CHAT_BODY, TIMEOUT_S) == [0, 1, 2]
    assert llama.asked == ["/apply-template", "/tokenize"]
    assert llama.bodies[0] == CHAT_BODY
    assert msgspec.json.decode(llama.bodies[1])["content"] == "<|im_start|>user one two"


async def test_a_completion_s_tokens_are_those_of_its_prompt() -> None:
    llama = Llama()
    async with engine(llama) as client:
        body = msgspec.json.encode({"prompt": "one two"})
        assert await client.tokenize_request(COMPLETION, body, TIMEOUT_S) == [0, 1]
    assert llama.asked == ["/tokenize"]


@pytest.mark.parametrize("prompt", [None, ["one", "two"], [1, 2], {"prompt_string": "a"}], ids=str)
async def test_a_prompt_that_is_no_single_text_is_no_conversation(prompt: Any) -> None:
    llama = Llama()
    async with engine(llama) as client:
        body = msgspec.json.encode({"prompt": prompt})
        assert await client.tokenize_request(COMPLETION, body, TIMEOUT_S) is None
    assert llama.asked == []


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/apply-template": (500, {"error": {"message": "no such template"}})},
        {"/apply-template": (200, {"prompt": 5})},
        {"/apply-template": (200, ["a"])},
        {"/apply-template": (200, {"prompt": "a"}), "/tokenize": (500, {})},
        {"/apply-template": (200, {"prompt": "a"}), "/tokenize": (200, {"tokens": "many"})},
        {"/apply-template": (200, {"prompt": "a"}), "/tokenize": (200, b"\xff")},
    ],
    ids=["404", "500", "no text", "list", "no tokenizer", "no list", "bytes"],
)
async def test_an_engine_that_cannot_tokenize_says_nothing(answers: dict[str, Any]) -> None:
    async with engine(Llama(answers)) as client:
        assert await client.tokenize_request(CHAT, CHAT_BODY, TIMEOUT_S) is None
