"""A headless Chromium, the web server whose pages it visits, and a name that is rebound."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.optional import browser

PAGE = (Path(__file__).parent / "attack.html").read_bytes()
REPORT_LIMIT_S = 40.0
# Nothing of the browser's own shall answer for the gateway: its checks of requests into a local
# network are off. Same-origin policy and CORS stay, as in every browser.
FLAGS = (
    "--headless",
    "--no-sandbox",  # the page is our own, and root has no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
    "--no-first-run",
    "--no-proxy-server",
)


class PageServer:
    """Serves the page on 127.0.0.1 and takes its report."""

    def __init__(self) -> None:
        self._reports: queue.Queue[dict[str, Any]] = queue.Queue()
        reports = self._reports

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path.startswith("/page") else 404)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(PAGE if self.path.startswith("/page") else b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(204)
                self.end_headers()
                reports.put(json.loads(body))

            def log_message(self, format: str, *args: Any) -> None:
                """Kept out of the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def report(self) -> dict[str, Any]:
        return self._reports.get(timeout=REPORT_LIMIT_S)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Rebound:
    """What a browser connects to under a name that first is the page's server and then, by another
    answer of its DNS server, the gateway: the page is answered, all else passes on byte by byte."""

    def __init__(self, gateway_port: int) -> None:
        self._gateway_port = gateway_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, browser: socket.socket) -> None:
        with browser:
            first = browser.recv(65536)
            if first.startswith(b"GET /page"):
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
                browser.sendall(head + PAGE)
                return
            with socket.create_connection(("127.0.0.1", self._gateway_port)) as gateway:
                gateway.sendall(first)
                up = threading.Thread(target=_pass_on, args=(browser, gateway), daemon=True)
                up.start()
                _pass_on(gateway, browser)
                up.join(REPORT_LIMIT_S)

    def close(self) -> None:
        self._listener.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side is gone, and the other will see it


@contextmanager
def visiting(url: str, rules: str) -> Iterator[None]:
    """A browser that visits the page; `rules` say what names are which addresses."""
    executable, environment = browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                str(executable),
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--host-resolver-rules={rules}",
                url,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def visit(pages: PageServer, host: str, gateway_url: str) -> dict[str, Any]:
    """What the page reports that is visited under `host`, a name of this machine."""
    report = f"http://127.0.0.1:{pages.port}/report"
    query = urlencode({"gateway": gateway_url, "report": report})
    with visiting(f"http://{host}:{pages.port}/page?{query}", "MAP evil.test 127.0.0.1"):
        return pages.report()


def visit_rebound(pages: PageServer, gateway_port: int) -> dict[str, Any]:
    """What the page reports whose own name has become the gateway's address."""
    origin = f"http://evil.test:{gateway_port}"
    report = f"http://127.0.0.1:{pages.port}/report"
    query = urlencode({"gateway": origin, "report": report})
    rebound = Rebound(gateway_port)
    try:
        with visiting(f"{origin}/page?{query}", f"MAP evil.test 127.0.0.1:{rebound.port}"):
            return pages.report()
    finally:
        rebound.close()
