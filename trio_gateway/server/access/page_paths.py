"""Which requests are for the page: its files hold no data, and need no key. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

PAGE_PATH = "/ui/"
_REFUSED = re.compile(r"q\s*=\s*0(?:\.0{0,3})?")


def is_of_page(path: str) -> bool:
    """Whether it is one of the page's own files, or would be."""
    return path.startswith(PAGE_PATH) or path == PAGE_PATH.rstrip("/")


def leads_to_page(path: str, accepts: Iterable[str]) -> bool:
    """Whether somebody opens the gateway's address in a browser. `accepts`: its `Accept` headers;
    Ollama's clients, which ask for the same path, name no HTML there."""
    kinds = (kind for value in accepts for kind in value.split(","))
    return path == "/" and any(map(_is_html, kinds))


def _is_html(kind: str) -> bool:
    """One that a client names to say that it does not take it (`q=0`) is none."""
    name, *parameters = (part.strip().lower() for part in kind.split(";"))
    return name == "text/html" and not any(_REFUSED.fullmatch(part) for part in parameters)
