"""The reaper: a small process that stops the engines if the gateway is killed.

The gateway writes `+PGID` when it starts an engine's process group and `-PGID` when the group is
gone. The pipe's end-of-file means that the gateway is gone, however it went, SIGKILL included;
whatever is still registered is then asked to end, and killed shortly after.

A program of its own (`python -I -S reaper_program.py`), standard library only: 9 MiB, and nothing
that could fail to import. `reaper.Reaper` starts it and talks to it.
"""

import os
import signal
import sys
import time

# A killed gateway must have left nothing after one second: SIGTERM, this long, SIGKILL.
GRACE_S = 0.5
POLL_S = 0.01


def read_groups(lines: "object") -> "set[int]":
    """The groups still registered when the pipe ends."""
    groups: set[int] = set()
    for line in lines:  # type: ignore[attr-defined]
        sign, number = line[:1], line[1:].strip()
        if not number.isdigit() or int(number) <= 1:
            continue  # 0 and 1 would mean our own group, and everybody
        (groups.add if sign == b"+" else groups.discard)(int(number))
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


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = read_groups(sys.stdin.buffer)
    signal_groups(groups, signal.SIGTERM)
    signal_groups(groups, signal.SIGCONT)  # a stopped process would not see the SIGTERM
    deadline = time.monotonic() + GRACE_S
    while groups and time.monotonic() < deadline:
        time.sleep(POLL_S)  # orphans cannot be waited for, only asked after
        signal_groups(groups, 0)
    signal_groups(groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
