"""The limits of the process that runs a configuration, what it knows, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio

from tests.support.patience import eventually
from trio_gateway.config.lua import helper, program, sandbox
from trio_gateway.config.lua.sandbox import LuaFailure
from trio_gateway.config.lua.values import Table

pytestmark = pytest.mark.processes

FOR_EVER = ';("a"):rep(200000):gsub(".*b", "")'  # one instruction, and hours in C


@pytest.fixture(autouse=True)
def _no_helper_is_left() -> Iterator[None]:
    yield
    assert helpers() == []


def helpers(of: psutil.Process | None = None) -> list[psutil.Process]:
    return [child for child in (of or psutil.Process()).children() if is_helper(child)]


def is_helper(process: psutil.Process) -> bool:
    try:
        return str(Path(program.__file__).parent) in process.cmdline()
    except psutil.Error:  # gone, or a zombie
        return False


def failure(folder: Path, source: str) -> str:
    path = folder / "gateway.lua"
    path.write_text(source)
    with pytest.raises(LuaFailure) as caught:
        sandbox.run_file(path)
    message = str(caught.value)
    assert len(message) < 2 * program.LONGEST_MESSAGE
    return message.replace(f"{folder}/", "")


# -- what never ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        FOR_EVER,
        '("a"):rep(50000):find((".-"):rep(20) .. "b")',
        'for w in ("a"):rep(200000):gmatch(".-b") do end',
        'x = (""):rep(1e15)',
        "table.move({}, 1, 1e15, 2)",
    ],
)
def test_what_never_ends_inside_of_a_function_in_c_is_ended(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "CPU_LIMIT_S", 0.5)
    assert failure(tmp_path, source) == (
        "gateway.lua: more than 0.5 s of a processor's time (an endless loop?)"
    )


@pytest.mark.parametrize(
    "source",
    [
        "while true do utf8.len(('x'):rep(2e5)) end",
        "while true do pcall(utf8.len, ('x'):rep(2e5)) end",
        "local t = {} while true do table.insert(t, 1, 0) end",
        "while true do include('lib.lua') end",
        "while true do os.getenv('HOME') end",
    ],
)
def test_a_loop_of_slow_calls_is_ended_with_its_line(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "CPU_LIMIT_S", 1.0)
    (tmp_path / "lib.lua").write_text("-- " + "x" * 1_000_000)
    assert failure(tmp_path, f"\n{source}") == (
        "gateway.lua:2: more than 1 s of a processor's time (an endless loop?)"
    )


def test_what_waits_is_ended_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to."""
    monkeypatch.setattr(helper, "END_S", 0.3)
    os.mkfifo(tmp_path / "gateway.lua")
    with pytest.raises(LuaFailure, match=r"gateway\.lua: it did not end within 0\.3 s$"):
        sandbox.run_file(tmp_path / "gateway.lua")


def test_a_pipe_may_get_its_writer_late(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    os.mkfifo(path)

    def write() -> None:
        eventually(lambda: bool(helpers()), 10.0)
        path.write_text("x = 7")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert sandbox.run_file(path).globals["x"] == 7
    finally:
        writer.join()


# -- what is too large ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = ('x'):rep(1e15)", "gateway.lua:1: resulting string too large"),
        ("x = (''):rep(1e9, 'x')", "more than 64 MiB of memory used"),
        ("local s = 'x' while true do s = s .. s end", "more than 64 MiB of memory used"),
        ("x = string.format('%99999d', 1)", "invalid conversion"),
        ("x = { table.unpack({}, 1, 1e7) }", "too many results to unpack"),
        ("local function f(s) return s:gsub('.', f) end f('x')", "C stack overflow"),
        ("x = " + "(" * 100_000, "C stack overflow"),
        ("local t = { 1 } for i = 1, 60 do t = { t, t } end x = t", "more than 50000 values"),
        ("x = {} for i = 1, 3e5 do x[i] = {} end", "more than 50000 values"),
        ("x = {} for i = 1, 40 do x[i] = i .. ('y'):rep(1e6) end", "bytes of text in the tables"),
        ("error(('x'):rep(3e7))", "gateway.lua:1: xxx"),
        ("-- " + "x" * program.FILE_LIMIT_BYTES, "gateway.lua: more than 4 MiB"),
        ("table.sort({ 3, 1, 2, 5, 4 }, function() return true end)", "invalid order function"),
    ],
)
def test_what_is_too_large_is_an_error(tmp_path: Path, source: str, said: str) -> None:
    assert said in failure(tmp_path, source)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("program._watch", program.Ending.TOO_LARGE),  # on each system
        pytest.param(
            "lambda _, s: program._ask_the_kernel_for_limits(s)",
            1,  # MemoryError
            marks=pytest.mark.skipif(sys.platform != "linux", reason="keeps no such limit"),
        ),
    ],
)
def test_the_process_has_a_limit_of_memory_as_well(limits: str, code: int) -> None:
    """Should it be Python that takes the memory, and not Lua."""
    greedy = f"""
        import _thread, os, time
        from trio_gateway.config.lua import program
        _thread.start_new_thread({limits}, (os.getppid(), 60.0))
        time.sleep(0.1)
        taken = []
        for _ in range(2_000):
            taken.append(b"x" * 1_000_000)
    """
    command = [sys.executable, "-c", textwrap.dedent(greedy)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("x.x = x", "a table that contains itself"),
        ("local t = x for i = 1, 1e5 do t.x = {} t = t.x end", "a table nested too deeply"),
        ("x.x = print or pairs", "a function"),
    ],
)
def test_values_without_a_form_are_named(tmp_path: Path, source: str, shown: str) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(f"x = {{}}\n{source}")
    found = sandbox.run_file(path).globals["x"]
    while isinstance(found, Table):
        found = found["x"]
    assert f"a {found.kind}" == shown


# -- which files are read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/zero", "not a regular file"),
        ("/dev/urandom", "not a regular file"),
        ("/dev/stdin", "not a regular file"),
        ("fifo", "not a regular file"),
        ("socket", "not a regular file"),
        ("folder", "Is a directory"),
        (".", "Is a directory"),
        ("to-zero", "not a regular file"),
        ("circle", "Too many levels of symbolic links"),
        ("big.lua", "more than 4 MiB"),
        ("sparse.lua", "more than 4 MiB"),
        ("fifo/x", "Not a directory"),
    ],
)
def test_include_reads_files_only_and_no_large_ones(tmp_path: Path, path: str, said: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", 0o140600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-zero").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "big.lua").write_text("-- " + "x" * program.FILE_LIMIT_BYTES)
    with open(tmp_path / "sparse.lua", "wb") as file:
        file.truncate(1 << 40)
    assert failure(tmp_path, f"\ninclude('{path}')") == f"gateway.lua:2: {path}: {said}"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="has no such files")
@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/kmsg", "/proc/kcore", "/proc/cpuinfo"])
def test_files_that_the_kernel_makes_up_are_read_with_the_same_limits(
    tmp_path: Path, path: str
) -> None:
    assert failure(tmp_path, f"include('{path}')")


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.lua").write_text("return 7")
    (tmp_path / "link.lua").symlink_to("real.lua")
    (tmp_path / "gateway.lua").write_text("x = include('link.lua')")
    assert sandbox.run_file(tmp_path / "gateway.lua").globals["x"] == 7


def test_a_file_that_includes_itself_through_a_link_is_a_cycle(tmp_path: Path) -> None:
    (tmp_path / "link.lua").symlink_to("gateway.lua")
    assert "never ends" in failure(tmp_path, "include('link.lua')")


def test_a_chain_of_includes_has_an_end(tmp_path: Path) -> None:
    for n in range(300):
        (tmp_path / f"c{n}.lua").write_text(f"return include('c{n + 1}.lua')")
    assert "stack overflow" in failure(tmp_path, "include('c0.lua')")


# -- what it knows --------------------------------------------------------------------------------


def test_it_gets_the_variables_that_the_file_names_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "not-for-the-helper")
    monkeypatch.setenv("MY_KEY", "for-the-helper")
    monkeypatch.delenv("UNSET", raising=False)
    path = tmp_path / "gateway.lua"
    path.write_text("key = env('MY_KEY')\nother = os.getenv('UNSET')\n" + FOR_EVER)
    environments = []

    def look_and_end_it() -> None:
        if eventually(lambda: any(h.cpu_times().user > 0.3 for h in helpers()), 20.0):
            (one,) = helpers()
            environments.append(one.environ())
            one.kill()

    watcher = threading.Thread(target=look_and_end_it)
    watcher.start()
    with pytest.raises(LuaFailure, match="ended by signal 9"):
        sandbox.run_file(path)
    watcher.join()
    (environment,) = environments
    assert "not-for-the-helper" not in str(environment)
    assert "for-the-helper" not in str(environment)
    path.write_text("key = env('MY_KEY')\nother = os.getenv('UNSET')")
    assert sandbox.run_file(path).variables == {"MY_KEY": "for-the-helper"}


# -- where it runs, and how it ends ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(FOR_EVER)
    code = f"""
        from pathlib import Path
        from trio_gateway.config.lua import sandbox
        sandbox.run_file(Path({str(path)!r}))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as parent:
        there = psutil.Process(parent.pid)
        assert eventually(lambda: bool(helpers(there)), 20.0)
        found = helpers(there)
        assert eventually(lambda: found[0].cpu_times().user > 0.1, 20.0)
        parent.send_signal(number)
        parent.wait(10)
        _, alive = psutil.wait_procs(found, 2.0)
    assert not alive


def test_ctrl_c_ends_it_and_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(FOR_EVER)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run_file(path)
    finally:
        timer.join()


def test_a_path_may_have_blanks_and_the_folder_files_that_look_like_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder; with 'signs'"
    folder.mkdir()
    for name in ("json.py", "lupa.py", "re.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('from the folder')")
    (folder / "my gateway.lua").write_text("x = include('my lib.lua')")
    (folder / "my lib.lua").write_text("return 7")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert sandbox.run_file(Path("my gateway.lua")).globals["x"] == 7


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_the_one_who_starts_it_may_have_no_stdin_and_no_stdout(tmp_path: Path, closed: str) -> None:
    (tmp_path / "gateway.lua").write_text("x = 7")
    code = (
        "from pathlib import Path; from trio_gateway.config.lua import sandbox;"
        "raise SystemExit(sandbox.run_file(Path('gateway.lua')).globals['x'])"
    )
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 7


async def test_beside_an_event_loop_it_runs_in_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(FOR_EVER)
    ticks = 0
    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:

            async def load() -> None:
                await trio.to_thread.run_sync(sandbox.run_file, path, abandon_on_cancel=True)

            nursery.start_soon(load)
            while True:
                await trio.sleep(0.01)
                ticks += 1
    assert ticks > 5
    (left,) = helpers()
    left.kill()
    assert await trio.to_thread.run_sync(eventually, lambda: helpers() == [], 10.0)


def test_a_program_that_is_done_costs_little(tmp_path: Path) -> None:
    """Of a processor's time, both processes: its start is what a command waits for."""
    path = tmp_path / "gateway.lua"
    path.write_text("server = {} models = {}")
    sandbox.run_file(path)
    before = os.times()
    started = time.perf_counter()
    for _ in range(10):
        sandbox.run_file(path)
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    assert spent / 10 < 0.15, f"{time.perf_counter() - started:.2f} s"
