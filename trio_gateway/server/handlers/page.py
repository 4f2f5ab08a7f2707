"""PageHandler: the page at /ui/, and the way to it.

The page's files are in `trio_gateway/page/`, as they are served: nothing is built. They hold no
data; what the page shows it asks for itself, with the key that its user gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple
from urllib.parse import quote

import trio

from trio_gateway.server.access.page_paths import PAGE_PATH, leads_to_page
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import answer_of
from trio_gateway.server.http.types import ROOT_KEY, Header
from trio_gateway.server.relay.answer import Answer

INDEX = "index.html"
_TYPES = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "svg": b"image/svg+xml",
}
# Only files of ours, nothing inline, no frames: what a model says can never become a program.
_SAFE: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    # Asked again each time, and answered with a 304: an update is never half there.
    (b"cache-control", b"no-cache"),
)


class PageFile(NamedTuple):
    content_type: bytes
    etag: bytes
    body: bytes


def read_page() -> Mapping[str, PageFile]:
    """The page's files, by their paths below `/ui/`."""
    return dict(_files_in(resources.files("trio_gateway") / "page", ""))


def _files_in(folder: Traversable, path: str) -> list[tuple[str, PageFile]]:
    found: list[tuple[str, PageFile]] = []
    for entry in folder.iterdir():
        name = path + entry.name
        if entry.is_dir():
            found += _files_in(entry, f"{name}/")
        elif (kind := _TYPES.get(name.rpartition(".")[2])) is not None:
            body = entry.read_bytes()
            found.append((name, PageFile(kind, _etag(body), body)))
    return found


def _etag(body: bytes) -> bytes:
    return b'"%s"' % sha256(body).hexdigest()[:32].encode()


class PageHandler:
    """Args:
    is_on: `server.page`; without it there is nothing at /ui/.
    """

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._files: Mapping[str, PageFile] | None = None  # read when they are first asked for

    async def handle_page(self, endpoint: Endpoint, call: Call) -> Answer:
        if not self._is_on:
            message = "the page is switched off: server.page = false"
            raise ApiError(404, message, code="unknown_path")
        if call.scope["path"] == PAGE_PATH.rstrip("/"):
            return _redirect(call)
        if self._files is None:
            self._files = await trio.to_thread.run_sync(read_page)
        name = call.values.get("file", INDEX)
        file = self._files.get(name)
        if file is None:
            raise ApiError(404, "the page has no such file", code="unknown_path")
        headers = [*_SAFE, (b"etag", file.etag)]
        if _is_known(file.etag, call.header_values(b"if-none-match")):
            return Answer(304, headers, b"")
        return Answer(200, [*headers, (b"content-type", file.content_type)], file.body)

    async def handle_root(self, endpoint: Endpoint, call: Call) -> Answer:
        """Ollama's command asks for it before anything else, and some pages compare the text; a
        browser is led to the page."""
        if self._is_on and leads_to_page("/", call.header_values(b"accept")):
            return _redirect(call)
        answer = answer_of(b"Ollama is running", b"text/plain; charset=utf-8")
        answer.headers.append((b"vary", b"Accept"))
        return answer


def _is_known(etag: bytes, given: list[str]) -> bool:
    """Whether the browser has this very file. A proxy that compresses makes a weak tag of ours."""
    known = {tag.strip().removeprefix("W/") for value in given for tag in value.split(",")}
    return etag.decode() in known or "*" in known


def _redirect(call: Call) -> Answer:
    place = call.scope.get(ROOT_KEY, "") + PAGE_PATH
    headers = [
        (b"location", quote(place).encode()),
        (b"vary", b"Accept"),
        (b"cache-control", b"no-cache"),
    ]
    return Answer(302, headers, b"")
