"""Which tests stay together when several workers share them.

Those of one file do, so that a fixture of a module is made once. Some files share dear fixtures
and also stay together, and of some each test has its own gateway or takes long. (The groups of
pytest-xdist are marks, which it looks for in a place that pytest 9.2 has given up.)
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/test_", "tests/gguf/", "tests/integration/test_client_")
APART = (
    "tests/engine/scheduling/",
    "tests/gateway/test_hostile_inputs.py",
    "tests/integration/test_carryover",
    "tests/integration/test_signals.py",
)


class Distribution(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        together = next((prefix for prefix in TOGETHER if nodeid.startswith(prefix)), None)
        return together or (nodeid if nodeid.startswith(APART) else nodeid.split("::")[0])

    def remove_node(self, node: Any) -> str | None:
        """Without what a worker that crashed had done: given to another, it brings no report, and
        the run would wait for one for ever."""
        done = [scope for scope, unit in self.assigned_work[node].items() if all(unit.values())]
        for scope in done:
            del self.assigned_work[node][scope]
        found: str | None = super().remove_node(node)
        return found
