"""How many files this process may have open: as many as the system allows, its children as before.

A connection is a file, and so is each engine's, each pipe and each upload on disk. Many systems
give a program 1,024 of them, and more if it asks. Its children must not inherit that: some use
`select`, which knows no file above 1,024, and some close all that there could be when they start.
"""

from __future__ import annotations

import contextlib
import logging
import sys

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

_WITHOUT_LIMIT = 1024**2  # where the system has none, or does not say
_FALLBACKS = (_WITHOUT_LIMIT, 10_240)  # "unlimited" is refused by macOS, and by Linux

_inherited: int | None = None  # the soft limit before it was raised; the process has one


def raise_limit() -> None:
    """Let this process open as many files as the system allows it."""
    global _inherited
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    for wanted in (hard, *_FALLBACKS):
        if _as_number(wanted) < _as_number(soft):
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            if _inherited is None:
                _inherited = soft
            log.debug("up to %d files may be open, instead of %d", wanted, soft)
            return


def limit() -> int:
    """How many files this process may have open now."""
    if sys.platform == "win32":
        return _WITHOUT_LIMIT
    return _as_number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def hard_limit() -> int:
    """How many it may ever have open: `raise_limit` makes it so."""
    if sys.platform == "win32":
        return _WITHOUT_LIMIT
    return _as_number(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def limit_of_children() -> int | None:
    """The soft limit that a child should have; None if that is its own already."""
    return _inherited


def _as_number(value: int) -> int:
    if sys.platform != "win32" and value == resource.RLIM_INFINITY:
        return 2**62
    return value
