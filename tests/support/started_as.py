"""Becomes another program, started as a shell, a script or a terminal would have started it.

    python -S started_as.py [--sigint-ignored] [--nohup] [--on-terminal] PROGRAM ARGUMENT...

Run in a session of its own. `--on-terminal`: stdin is a terminal, which becomes that session's.
"""

import fcntl
import os
import signal
import sys
import termios


def main() -> None:
    argv = sys.argv[1:]
    ignored = signal.SIG_DFL
    while argv[0].startswith("--"):
        option = argv.pop(0)
        if option == "--sigint-ignored":
            ignored = signal.SIG_IGN
        elif option == "--nohup":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif option == "--on-terminal":
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, ignored)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
