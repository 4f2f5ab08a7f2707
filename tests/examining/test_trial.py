"""A variant is started for real and asked: here a fake engine, which answers as it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import FAKE_ENGINE
from tests.support.schema_values import config, model, variant
from trio_gateway.config.schema import GatewayConfig, KvCarryoverConfig
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.examining.trial import Trial, Tried, try_variant

pytestmark = pytest.mark.processes

CHAT = "/v1/chat/completions"
CALL = {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
TIMINGS = {
    "prompt_n": 640, "prompt_ms": 3200.0, "cache_n": 0, "predicted_n": 48, "predicted_ms": 1200.0
}  # fmt: skip


def events(*data: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(one)}\n\n" for one in data) + "data: [DONE]\n\n"


def answers(**message: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 640, "completion_tokens": 48}
    whole = {"choices": [{"message": message}], "usage": usage}
    piece = {"choices": [{"delta": {"content": "Yes."}}]}
    return {"json": whole, "events": events(piece, {"choices": [], "timings": TIMINGS})}


async def tried(folder: Path, given: dict[str, Any], **server: Any) -> tuple[Trial, LedgerFile]:
    file = folder / "answers.json"
    file.write_text(json.dumps({CHAT: given}))
    args = ("-S", str(FAKE_ENGINE), "--answers", str(file))
    wanted = variant(4096, binary=sys.executable, args=args, workdir=folder)
    of = config(model("m", wanted), **server)
    ledger, steps = LedgerFile(folder / "ledger.json"), list[str]()
    trial = await _try(of, ledger, steps)
    assert steps[0] == "starting"
    assert steps[-1] == "stopping"
    return trial, ledger


async def _try(of: GatewayConfig, ledger: LedgerFile, steps: list[str]) -> Trial:
    return await try_variant(of, of.models[0], of.models[0].variants[0], ledger, steps.append)


async def test_what_it_says_is_measured_and_remembered(tmp_path: Path) -> None:
    trial, ledger = await tried(tmp_path, answers(tool_calls=[CALL]))
    assert (trial.failure, trial.asked, trial.tools) == ("", Tried(True), Tried(True))
    assert (trial.prompt_speed, trial.speed) == (200.0, 40.0)
    assert trial.restore == Tried(None, "its caches are not kept")
    (entry,) = ledger.read().values()
    assert (entry.prompt_speed, entry.speed, entry.tools) == (200.0, 40.0, True)
    assert entry.load_s is not None


async def test_an_answer_without_a_call_is_told(tmp_path: Path) -> None:
    trial, _ = await tried(tmp_path, answers(content="It is sunny."))
    assert trial.tools == Tried(False, "it answers without calling the tool")


async def test_an_engine_that_answers_nonsense_does_not_answer(tmp_path: Path) -> None:
    keeps = KvCarryoverConfig(directory=tmp_path / "kv")
    trial, _ = await tried(tmp_path, {"json": {}, "events": "data: {}\n\n"}, kv_carryover=keeps)
    assert trial.asked == Tried(False, "the stream of its answer broke off")
    assert trial.tools.works is None
    assert trial.load_s is not None
