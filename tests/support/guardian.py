"""Ends what a test run has started once the run is gone, however it went: also by SIGKILL.

    python -m tests.support.guardian MARK

stdin is a pipe whose other end only the run holds. Its workers have the mark as well.
"""

from __future__ import annotations

import signal
import sys

from tests.support.isolation import end_what_is_left


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    while end_what_is_left(sys.argv[1], within_s=0):  # what one starts while another is ended
        pass


if __name__ == "__main__":
    main()
