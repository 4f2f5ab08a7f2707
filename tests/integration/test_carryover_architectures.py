"""A conversation that was carried over is answered as if its engine had never stopped.

For each kind of model that keeps its past in its own way, with the real engine and through the
gateway: across a swap, a growth, a restart of the gateway and an idle stop.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.harness import (
    GatewayProcess,
    configuration,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually
from tests.support.tiny_architectures import ARCHITECTURES, DENSE, write_model

pytestmark = pytest.mark.untraced

FEW = ("llama", "gemma3", "lfm2")  # one of each way; the others are as these
SMALL, LARGE = 2048, 4096
FACTS = " ".join(f"Fact {i}: the number {i} follows {i - 1}." for i in range(1, 20))
# Each goes on with what was said before; the third does not fit into the small variant.
QUESTIONS = (FACTS, "Go on.", FACTS[::-1] * 2, "And then?", "Is that all?")
CHECKPOINTS_SINCE = (2026, 10)  # engines save them; older ones read some models' prompts again
ROUNDED = 0.03  # of a logprob
NEAR = 8  # tokens before a prompt's end, at which an engine can take it up again


class Token(NamedTuple):
    """`logprob`: of it, and `margin`: by which it was ahead of the second."""

    text: str
    logprob: float
    margin: float


class Turn(NamedTuple):
    text: str
    tokens: list[Token]
    prompt_tokens: int
    cached: int
    variant: str
    carried: str | None


class Conversation:
    """With one model, turn by turn; its gateway may be another each time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns: list[Turn] = []

    def next(self, gateway: GatewayProcess, said: Sequence[Turn] = ()) -> Turn:
        """`said`: the answers so far; without them, its own."""
        number = len(self.turns)
        messages = []
        for question, turn in zip(QUESTIONS, (said or self.turns)[:number], strict=False):
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.text})
        messages.append({"role": "user", "content": QUESTIONS[number]})
        response = gateway.chat(
            self.name,
            messages=messages, max_tokens=24, temperature=0, logprobs=True, top_logprobs=2,
        )  # fmt: skip
        assert response.status_code == 200, response.text
        answer = response.json()
        usage, (choice,) = answer["usage"], answer["choices"]
        self.turns.append(
            Turn(
                choice["message"]["content"],
                [_token(entry) for entry in choice["logprobs"]["content"]],
                usage["prompt_tokens"],
                usage["prompt_tokens_details"]["cached_tokens"],
                response.headers["X-Gateway-Variant"],
                response.headers.get("X-Gateway-Kv"),
            )
        )
        return self.turns[-1]


def _token(entry: dict[str, Any]) -> Token:
    first, second = entry["top_logprobs"]
    return Token(entry["token"], entry["logprob"], first["logprob"] - second["logprob"])


def assert_same(turn: Turn, expected: Turn, name: str) -> None:
    """The same text, up to where two tokens were as likely: what was read in other batches is
    rounded otherwise. A cache that is not what it was is off by far more."""
    assert (turn.prompt_tokens, len(turn.tokens)) == (expected.prompt_tokens, len(expected.tokens))
    for token, known in zip(turn.tokens, expected.tokens, strict=True):
        assert abs(token.logprob - known.logprob) < ROUNDED, (name, turn, expected)
        if token.text != known.text:
            assert known.margin < ROUNDED, (name, turn, expected)
            return
    assert turn.text == expected.text


def config_of(folder: Path, names: Sequence[str], *contexts: int, **server: str) -> str:
    files = {name: folder / f"{name}.gguf" for name in names}
    return configuration(
        *(model(n, *(real_variant(c, file=files[n]) for c in contexts)) for n in names), **server
    )


def carried_over(tmp_path: Path, names: Sequence[str], unbroken: Sequence[Conversation]) -> None:
    """Each conversation, with an engine that is stopped after each turn in another way."""
    stored = f'{{ directory = "{tmp_path / "kv"}", persist = true }}'
    config = config_of(tmp_path, names, SMALL, LARGE, kv_carryover=stored)
    broken = [Conversation(name) for name in names]

    def all_next(check: Callable[[Conversation, Turn], None]) -> None:
        for conversation, other in zip(broken, unbroken, strict=True):
            turn = conversation.next(gateway, other.turns)
            expected = other.turns[len(conversation.turns) - 1]
            assert_same(turn, expected, conversation.name)
            check(conversation, turn)

    def is_first(conversation: Conversation, turn: Turn) -> None:
        assert (turn.cached, turn.variant) == (0, str(SMALL))

    def was_carried(conversation: Conversation, turn: Turn) -> None:
        if conversation.name in DENSE or has_checkpoints():
            before = conversation.turns[-2]
            assert turn.cached >= before.prompt_tokens - NEAR, conversation.name
            assert f" spared={turn.cached}" in (turn.carried or ""), conversation.name

    def has_grown(conversation: Conversation, turn: Turn) -> None:
        assert turn.variant == str(LARGE)
        was_carried(conversation, turn)

    def was_carried_and_idles(conversation: Conversation, turn: Turn) -> None:
        was_carried(conversation, turn)
        assert eventually(lambda: not gateway.engines(), 30)

    with running_gateway(tmp_path, config) as gateway:
        all_next(is_first)
        all_next(was_carried)  # each swap is for the next model
        all_next(has_grown)
        assert not has_checkpoints() or "slots are not saved again" not in gateway.log
        assert gateway.stop() == 0
    idle = config_of(tmp_path, names, LARGE, kv_carryover=stored, engine_idle_timeout="0.3")
    with running_gateway(tmp_path, idle) as gateway:
        all_next(was_carried_and_idles)  # over the restart
        all_next(was_carried_and_idles)
        assert gateway.stop() == 0


def has_checkpoints() -> bool:
    year, month, *_ = importlib.metadata.version("xllamacpp").split(".")
    return (int(year), int(month)) >= CHECKPOINTS_SINCE


def unbroken_by(tmp_path: Path, names: Sequence[str]) -> list[Conversation]:
    """Each conversation with an engine that runs through all of it."""
    for name in names:
        write_model(name, tmp_path / f"{name}.gguf")
    folder = tmp_path / "unbroken"
    folder.mkdir()
    config = config_of(tmp_path, names, LARGE, kv_carryover="false")
    with running_gateway(folder, config) as gateway:
        conversations = []
        for name in names:
            conversations.append(conversation := Conversation(name))
            for _ in QUESTIONS:
                conversation.next(gateway)
            assert [turn.carried for turn in conversation.turns] == [None] * len(QUESTIONS)
    return conversations


OTHERS = tuple(name for name in ARCHITECTURES if name not in FEW)


@pytest.mark.slow
@pytest.mark.parametrize("names", [FEW, OTHERS[::2], OTHERS[1::2]], ids=" ".join)
def test_what_is_carried_over_is_answered_as_by_an_engine_that_never_stopped(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    unbroken = unbroken_by(tmp_path, names)
    assert all(len({turn.text for turn in c.turns}) > 1 for c in unbroken)
    carried_over(tmp_path, names, unbroken)


@pytest.mark.slow
def test_with_all_of_a_sliding_window_s_cache_a_stop_costs_the_cache_and_no_answer(
    tmp_path: Path,
) -> None:
    """A restore would give answers to something else, in silence."""
    write_model("gemma3", tmp_path / "gemma3.gguf")
    full = real_variant(SMALL, "--swa-full", file=tmp_path / "gemma3.gguf")
    config = configuration(model("gemma3", full), engine_idle_timeout="0.3")
    with running_gateway(tmp_path, config) as gateway:
        gateway.wait_for_line("no KV carry-over with --swa-full")
        stopped = Conversation("gemma3")
        for _ in range(2):
            stopped.next(gateway)
            assert eventually(lambda: not gateway.engines(), 30)
        assert (stopped.turns[1].cached, stopped.turns[1].carried) == (0, None)
    config = configuration(model("gemma3", full), kv_carryover="false")
    with running_gateway(tmp_path, config) as gateway:
        unbroken = Conversation("gemma3")
        for turn in stopped.turns:
            assert_same(turn, unbroken.next(gateway, stopped.turns), "gemma3")
