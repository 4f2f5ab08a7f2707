"""The root of the command line: it handles signals, and then loads the commands.

Loading one takes up to 0.2 s; what this imports itself is a few ms.
"""

from __future__ import annotations

from trio_gateway.stop_signals import StopSignals


def main() -> None:
    signals = StopSignals()
    signals.install()
    from trio_gateway.commands.root import root

    root(obj=signals)
