"""Which tests stay together when several workers share them.

Those of one file do, so that a fixture of a module is made once. Some files share dear fixtures
and also stay together, and of some each test has its own gateway or takes long. (The groups of
pytest-xdist are marks, which it looks for in a place that pytest 9.2 has given up.)
"""

from __future__ import annotations

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
