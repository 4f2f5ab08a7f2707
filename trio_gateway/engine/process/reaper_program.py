"""The reaper: a small process that stops the engines if the gateway is killed.

The gateway writes `+PGID` when it starts an engine's process group, `+PGID NAME` if that is worth
telling, and `-PGID` when the group is gone. The pipe's end-of-file means that the gateway is gone,
however it went, SIGKILL included; whatever is still registered is then asked to end, and killed
shortly after. A line `.` before that says that the gateway ended in order.

It also keeps the record of the run, for the next gateway to read: what runs, and how it ended.
The file is locked for as long as the reaper lives, and gone after a run that ended in order.

A program of its own (`python -I -S reaper_program.py [FILE ABOUT]`), standard library only: 10 MiB,
and nothing that could fail to import. `reaper.Reaper` starts it and talks to it.
"""

import contextlib
import json
import os
import signal
import sys
import time

# A killed gateway must have left nothing after one second: SIGTERM, this long, SIGKILL.
GRACE_S = 0.5
POLL_S = 0.01


class Record:
    """The first line of a file is the record, in JSON; what comes after it is of no account.

    A file that cannot be written is no reason to leave an engine running: it is done without.

    Args:
        about: what the gateway has to say of itself.
    """

    def __init__(self, path: "str | None" = None, about: "dict[str, object] | None" = None) -> None:
        self._path, self._about, self._file = path, about or {}, -1
        self.ended_in_order = False
        if path is not None:
            try:
                import fcntl

                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (OSError, ImportError):
                self._file = -1

    def write(self, groups: "dict[int, str]", ended: "dict[str, object] | None" = None) -> None:
        if self._file < 0:
            return
        engines = [
            {"group": group, "name": name, "born": born_of(group)}
            for group, name in groups.items()
            if name
        ]
        told = {**self._about, "engines": engines, **(ended or {})}
        with contextlib.suppress(OSError):
            os.pwrite(self._file, json.dumps(told).encode() + b"\n", 0)

    def remove(self) -> None:
        if self._path is not None and self._file >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def born_of(process: int) -> "int | None":
    """When it began, in the kernel's ticks: with its number that means no other process. None: it
    does not run, or the system does not say."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            said = file.read().rpartition(b")")[2].split()
        return None if said[0] == b"Z" else int(said[19])
    except (OSError, ValueError, IndexError):
        return None


def read_groups(lines: "object", record: "Record | None" = None) -> "dict[int, str]":
    """The groups still registered when the pipe ends, and their names; none: an empty one."""
    groups: dict[int, str] = {}
    record = record or Record()
    for line in lines:  # type: ignore[attr-defined]
        sign, (number, _, name) = line[:1], line[1:].strip().partition(b" ")
        if sign == b"." and not number:
            record.ended_in_order = True
        if not number.isdigit() or int(number) <= 1:
            continue  # 0 and 1 would mean our own group, and everybody
        if sign == b"+":
            groups[int(number)] = name.decode(errors="replace")
        else:
            groups.pop(int(number), None)
        record.write(groups)
    return groups


def signal_groups(groups: "set[int]", number: int) -> None:
    """Signal each group; forget those that are gone."""
    for group in list(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:
            if sys.platform == "darwin":  # a zombie's group, which its new parent reaps
                groups.discard(group)


def end_groups(left: "set[int]") -> None:
    signal_groups(left, signal.SIGTERM)
    signal_groups(left, signal.SIGCONT)  # a stopped process would not see the SIGTERM
    deadline = time.monotonic() + GRACE_S
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)  # orphans cannot be waited for, only asked after
        signal_groups(left, 0)
    signal_groups(left, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path, about = sys.argv[1:] if len(sys.argv) == 3 else (None, "{}")
    record = Record(path, json.loads(about))
    record.write({})
    groups = read_groups(sys.stdin.buffer, record)
    ended: dict[str, object] = {"ended_at": time.time()}
    if not record.ended_in_order:
        record.write(groups, ended)  # at once: whoever killed the gateway may mean this as well
    end_groups(set(groups))
    if record.ended_in_order:
        record.remove()
    else:
        ended["ended"] = [name for name in groups.values() if name]
        record.write({}, ended)


if __name__ == "__main__":
    main()
