"""The rooms of docs/architecture.md, from the modules' own first lines.

`python -m tests.support.house` writes them into the page.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- rooms -->\n"
# From the roof to the ground, as tests/test_imports.py has them.
ROOMS = (
    "",
    "commands",
    "examining",
    "converting",
    "service",
    "agents",
    "server",
    "server/handlers",
    "server/openapi",
    "server/reading",
    "server/fleet",
    "server/ollama",
    "server/metrics",
    "server/feed",
    "server/history",
    "server/traces",
    "server/records",
    "server/relay",
    "server/access",
    "server/forms",
    "server/http",
    "server/api",
    "models",
    "models/counting",
    "models/need",
    "engine",
    "engine/ledger",
    "engine/cluster",
    "engine/waking",
    "engine/kv",
    "engine/clients",
    "engine/http",
    "engine/sites",
    "engine/scheduling",
    "engine/process",
    "cluster",
    "config",
    "config/reading",
    "config/lua",
    "finding",
    "gguf",
    "hardware",
)


def first_line(file: Path) -> str:
    """Of a module's docstring; empty if it has none."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def rooms() -> dict[str, list[Path]]:
    """The modules of each package, by its path below `trio_gateway`."""
    package = ROOT / "trio_gateway"
    found: dict[str, list[Path]] = {}
    for file in sorted(package.rglob("*.py")):
        if file.name != "__init__.py":
            name = file.parent.relative_to(package).as_posix()
            found.setdefault("" if name == "." else name, []).append(file)
    return found


def described() -> str:
    """The part of the page that names every module once."""
    found, lines = rooms(), list[str]()
    for room in ROOMS:
        folder = ROOT / "trio_gateway" / room
        lines += ["", f"### {folder.relative_to(ROOT).as_posix()}/", ""]
        lines += [first_line(folder / "__init__.py"), "", "| file | what it is |", "|---|---|"]
        lines += [f"| `{file.name}` | {first_line(file)} |" for file in found[room]]
    return "\n".join([*lines[1:], ""])


def written() -> str:
    """That part as it is in the page."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].lstrip("\n")


if __name__ == "__main__":
    before, marker, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{marker}\n{described()}", encoding="utf-8")
