"""What holds for every test: where it runs, what it may start, and what it leaves behind.

A test that starts a process, its own or the product's, has the marker `processes`: all in
`integration/` do, elsewhere a test or its module says so. The others are the unit tests. A marker
that is missing is an error, because a unit test's process does not start.

A test that goes through the same lines thousands of times has the marker `untraced`: counting them
for the coverage takes longer than the test, and others, which are about single cases, count them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import lua, patience
from tests.support.isolation import (
    ProcessGuard,
    end_what_is_left,
    folders_of_nobody,
    run_mark,
    signals_as_from_a_terminal,
    start_guardian,
)
from tests.support.reports import InternalErrors, sendable
from tests.support.thoroughness import QUICK, THOROUGH
from trio_gateway.config.lua import helper

INTEGRATION = f"{Path(__file__).with_name('integration')}{os.sep}"

# Time limits of an example would fail on a busy machine, and say nothing about the code. The same
# examples each time, as new ones would fail for whoever comes next; `thorough` looks for new ones.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("whole", CALM, max_examples=50)
settings.register_profile(QUICK, CALM, max_examples=10)
settings.register_profile(THOROUGH, CALM, max_examples=1000, derandomize=False)
settings.load_profile("whole")
GUARDIAN = pytest.StashKey[subprocess.Popen[bytes]]()
guard = ProcessGuard()
internal_errors = InternalErrors()


def pytest_configure(config: pytest.Config) -> None:
    signals_as_from_a_terminal()
    run_mark()
    if not hasattr(config, "workerinput"):
        config.stash[GUARDIAN] = start_guardian()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Workers that were killed cannot end what they started."""
    if (guardian := config.stash.get(GUARDIAN, None)) is not None:
        guardian.communicate()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    return sendable((yield))


def pytest_internalerror(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    internal_errors.add(excinfo.value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker's error is printed pages before the one that it causes; and if it comes late enough,
    it causes none, and pytest-xdist ends with 0."""
    if not internal_errors.ends:
        return
    session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    if (terminal := session.config.pluginmanager.get_plugin("terminalreporter")) is not None:
        for end in internal_errors.ends:
            terminal.write_sep("=", "the end of an internal error")
            terminal.write_line(end)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    starting = [item for item in items if str(item.path).startswith(INTEGRATION)]
    for item in starting:
        item.add_marker(pytest.mark.processes)
    # What waits most comes first, so that the others fill its pauses.
    items[:] = [*starting, *(item for item in items if not str(item.path).startswith(INTEGRATION))]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Only called, and only importable, with pytest-xdist."""
    from tests.support.distribution import Distribution

    config.option.loadscopereorder = False
    return Distribution(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    guard.allows = item.get_closest_marker("processes") is not None
    guard.refused.clear()
    tracer, followed = sys.gettrace(), dict[str, str]()
    if item.get_closest_marker("untraced") is not None:
        sys.settrace(None)
        # Nor in the processes that it starts.
        followed = {n: os.environ.pop(n) for n in [*os.environ] if n.startswith("COVERAGE_")}
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
        os.environ.update(followed)
        guard.allows = True


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(settings: Any) -> None:
    """Only called with pytest-timeout, which sets the timer after it."""
    patience.limit_begins(settings.timeout)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_cancel_timer() -> None:
    patience.limit_ends()


@pytest.fixture(autouse=True)
def refused_processes() -> Iterator[list[str]]:
    """Must be none, also where the code under test took the refusal for a failure of its own."""
    yield guard.refused
    assert guard.refused == []


@pytest.fixture(autouse=True)
def _configurations_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their helper is a process; in a unit test, the same program runs in this one."""
    if not guard.allows:
        monkeypatch.setattr(helper, "run_program", lua.run_here)


@pytest.fixture(scope="session", autouse=True)
def _leaves_nothing_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with folders_of_nobody(tmp_path_factory.mktemp("user")) as mark:
        yield
        assert end_what_is_left(mark) == []
