"""Runs llama.cpp's server tests on both sides, and prints what differs: `nox -s peers`.

It ends with 1 if there is a difference that accepted.toml does not name, or if one that it names is
gone.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tests.support.peers import comparison, plugin, suite
from tests.support.peers.comparison import Accepted, Result, Verdict
from tests.support.tiny_model import write_tiny_model

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ACCEPTED = HERE / "accepted.toml"
SIDES = {"straight": "engine", "gateway": "gateway"}
TEST_LIMIT_S, SIDE_LIMIT_S, END_LIMIT_S = 180, 3600, 15
NOBODY = "http://127.0.0.1:9"  # nothing of the internet: what would be downloaded fails at once
MOST_TRIED_AGAIN = 100
# Of the model: nobody reads what it says. The tests' own have as few tokens: some prompts are to be
# too long for it.
LAYERS, VOCABULARY = 2, 384


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends what it started
    accepted = comparison.read_accepted(ACCEPTED.read_text())
    work = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        tests = suite.with_counts_noted(suite.unpacked(), work / "suite")
        model = write_tiny_model(work / "tiny.gguf", layers=LAYERS, vocabulary=VOCABULARY)
        programs = {side: _program(work, side, model) for side in SIDES}
        runs = {
            side: _run(side, programs[side], tests, work, ["-n", asked.workers, *asked.pytest])
            for side in SIDES
        }
        unsteady: set[str] = set()
        verdict = _verdict(runs, accepted)
        doubted = [*(difference.test for difference in verdict.others), *verdict.outdated]
        if doubted and len(doubted) <= MOST_TRIED_AGAIN:
            print(f"\n{len(doubted)} are not as listed; each is tried again, alone", flush=True)
            alone = ["-n", "0", *doubted]
            for side in SIDES:
                again = _run(side, programs[side], tests, work, alone)
                unsteady.update(comparison.unsteady(runs[side], again))
                runs[side] |= again
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _report(runs, _verdict(runs, accepted), unsteady, partly=bool(asked.pytest))


def _verdict(runs: Mapping[str, Mapping[str, Result]], accepted: Sequence[Accepted]) -> Verdict:
    straight, gateway = runs["straight"], runs["gateway"]
    found = comparison.differences(straight, gateway)
    return comparison.judge(found, accepted, {*straight, *gateway})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="2", help="tests at a time (default: 2)")
    parser.add_argument("pytest", nargs="*", help="for pytest, such as unit/test_basic.py")
    return parser.parse_args()


def _program(work: Path, side: str, model: Path) -> Path:
    """What the tests start as their llama-server."""
    folder = work / side
    folder.mkdir()
    program = folder / "llama-server"
    engine = work / "straight" / "llama-server"
    start = [
        sys.executable,
        "-m",
        "tests.support.peers.server",
        SIDES[side],
        str(model),
        str(engine),
    ]
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && exec echo llama-server\n'  # a gateway asks at each of its starts
        f'PYTHONPATH={ROOT} exec {shlex.join(start)} "$@"\n'
    )
    program.chmod(0o755)
    return program


def _run(
    side: str, program: Path, tests: Path, work: Path, more: Sequence[str]
) -> dict[str, Result]:
    record = work / f"{side}.jsonl"
    record.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-m", "not slow",
        "-p", "tests.support.peers.plugin", "-p", "no:cacheprovider", "-p", "no:trio",
        "--timeout", str(TEST_LIMIT_S), *more,
    ]  # fmt: skip
    print(f"\n{side} …", flush=True)
    with (work / f"{side}.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=tests,
            env=_environment(side, program, record),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(SIDE_LIMIT_S)
        except subprocess.TimeoutExpired:
            print(f"{side}: not done after {SIDE_LIMIT_S} s; it is ended", flush=True)
        finally:
            _end(process)
    lines = (work / f"{side}.txt").read_text().splitlines()
    print(lines[-1] if lines else "no output", flush=True)
    if not record.exists():
        raise SystemExit("\n".join(lines[-20:]))
    return comparison.read_record(record.read_text())


def _environment(side: str, program: Path, record: Path) -> Mapping[str, str]:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOBODY)
    here = "127.0.0.1,localhost,::1"
    return {
        **os.environ,
        **proxies,
        "NO_PROXY": here,
        "no_proxy": here,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",
        "LLAMA_SERVER_BIN_PATH": str(program),
        plugin.SIDE: side,
        plugin.RECORD: str(record),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """It and its servers, which are in its session. A gateway ends its engines itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_LIMIT_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue


def _report(
    runs: Mapping[str, Mapping[str, Result]],
    verdict: Verdict,
    unsteady: Collection[str],
    *,
    partly: bool,
) -> int:
    for reason, accepted in verdict.accepted.items():
        print(f"\n{len(accepted)} differ, accepted: {reason}")
        print("\n".join(f"  {difference.test}" for difference in accepted))
    _tell("came out differently when they were run again on the same side", sorted(unsteady))
    outdated = [*verdict.outdated, *(() if partly else verdict.unknown)]
    _tell("are accepted, but do not differ; take them off the list", outdated)
    _tell("differ and are not accepted", [difference.sentence for difference in verdict.others])
    print()
    for side, results in runs.items():
        counts = Counter(result.outcome for result in results.values())
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{side}: {len(results)} tests: {told}")
    differ = sum(map(len, verdict.accepted.values()))
    print(
        f"{differ} differences are accepted, {len(verdict.others)} are not;"
        f" {len(outdated)} entries of the list are outdated"
    )
    return 1 if verdict.others or outdated else 0


def _tell(what: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"\n{len(lines)} {what}:")
        print("\n".join(f"  {line}" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
