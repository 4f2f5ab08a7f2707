"""Holds a process at a named moment, or notes that it was there; Python runs this at its start.

For gateways that tests start with this folder on PYTHONPATH. The product knows nothing of it.

TRIO_GATEWAY_TEST_MOMENT: `module` (when it is about to be loaded) or `module:function` (when it is
about to be called). TRIO_GATEWAY_TEST_HERE: a file, or a FIFO, that gets a line then.
TRIO_GATEWAY_TEST_GO: a FIFO; the process goes on once something opens it to write.
"""

import functools
import importlib.util
import os
import sys


def reached() -> None:
    """Blocks the main thread, as slow code would: handlers of signals run meanwhile."""
    with open(os.environ["TRIO_GATEWAY_TEST_HERE"], "a") as here:
        here.write(f"{os.getpid()}\n")
    if go := os.environ.get("TRIO_GATEWAY_TEST_GO"):
        with open(go) as opened:
            opened.read()


class Finder:
    """Sees each import once; it leaves when its own has come."""

    def __init__(self, moment: str) -> None:
        self.module, _, self.function = moment.partition(":")

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self.module:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        if not self.function:
            reached()
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_wrap(module: object) -> None:
            load(module)  # type: ignore[arg-type]
            *owners, last = self.function.split(".")
            owner = functools.reduce(getattr, owners, module)
            inner = getattr(owner, last)

            @functools.wraps(inner)
            def wrapped(*args: object, **kwargs: object) -> object:
                setattr(owner, last, inner)  # once
                reached()
                return inner(*args, **kwargs)

            setattr(owner, last, wrapped)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


if moment := os.environ.get("TRIO_GATEWAY_TEST_MOMENT"):
    sys.meta_path.insert(0, Finder(moment))  # type: ignore[arg-type]
