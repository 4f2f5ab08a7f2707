"""A headless Chromium that a test drives: DevTools' protocol over a pipe, with no package for it.

`driven_browser()` gives a `Browser`, and `Browser.page(url)` a `Page`, which waits for what is to
be seen, presses keys, takes pictures, and has noted what went to the console and which addresses
were asked for.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.browsing import FLAGS
from tests.support.optional import browser
from tests.support.patience import is_too_long, left_s, patient

ANSWER_S = 30.0
SEEN_S = 60.0  # for what must become visible; it is told by its absence


class PageFailed(AssertionError):
    """What a page was asked to do raised, or did not happen in time."""


class Browser:
    """One process. Pages that it opens share no storage with those of another one."""

    def __init__(self, sends: int, reads: int) -> None:
        self._sends = sends
        self._next = 0
        self._lock = threading.Lock()
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._targets: list[str] = []
        threading.Thread(target=self._read, args=(reads,), daemon=True).start()

    def page(self, url: str, *, width: int = 1280, height: int = 900) -> Page:
        """A new tab at this address."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        arguments = {"targetId": target, "flatten": True}
        session = self.send("Target.attachToTarget", arguments)["sessionId"]
        page = self._pages[session] = Page(self, session)
        self._targets.append(target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.resize(width, height)
        page.go(url)
        return page

    def close_pages(self) -> None:
        """All of them: a browser has six connections to one server, and each open page keeps some;
        and a page whose server is gone asks for it for ever."""
        while self._targets:
            self.send("Target.closeTarget", {"targetId": self._targets.pop()})

    def send(
        self, method: str, arguments: dict[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        with self._lock:
            self._next += 1
            number = self._next
            answers = self._answers[number] = queue.Queue(1)
            message = {"id": number, "method": method, "params": arguments or {}}
            if session is not None:
                message["sessionId"] = session
            data = json.dumps(message).encode() + b"\0"
            while data:
                data = data[os.write(self._sends, data) :]
        try:
            answer = answers.get(timeout=min(patient(ANSWER_S), left_s() + 1))
        except queue.Empty:
            raise PageFailed(f"the browser does not answer {method}") from None
        if "error" in answer:
            raise PageFailed(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, reads: int) -> None:
        rest = b""
        with open(reads, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 20):
                *messages, rest = (rest + data).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers.pop(message["id"]).put(message)
                    elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                        page.notes(message["method"], message["params"])


class Page:
    """`complaints`: errors and warnings in the console, and exceptions. `asked`: the addresses of
    all requests so far."""

    def __init__(self, owner: Browser, session: str) -> None:
        self._owner, self._session = owner, session
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def notes(self, event: str, arguments: dict[str, Any]) -> None:
        match event:
            case "Runtime.exceptionThrown":
                details = arguments["exceptionDetails"]
                said = details.get("exception", {}).get("description", details["text"])
                self.complaints.append(said)
            case "Runtime.consoleAPICalled" if arguments["type"] in ("error", "warning", "assert"):
                said = " ".join(
                    str(a.get("value", a.get("description"))) for a in arguments["args"]
                )
                self.complaints.append(said)
            case "Log.entryAdded" if arguments["entry"]["level"] in ("error", "warning"):
                entry = arguments["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.asked.append(arguments["request"]["url"])

    def send(self, method: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._owner.send(method, arguments, self._session)

    def go(self, url: str) -> None:
        self.send("Page.navigate", {"url": url})

    def reload(self) -> None:
        self.send("Page.reload")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        arguments = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", {**arguments, "userGesture": True})
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            said = details.get("exception", {}).get("description", details["text"])
            raise PageFailed(f"{expression}: {said}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, within_s: float = SEEN_S) -> None:
        """Until the expression's value is one that counts as true."""
        began = time.monotonic()
        while True:
            with suppress(PageFailed):  # of a page that is not there yet
                if self.evaluate(f"Boolean({expression})"):
                    return
            if is_too_long(time.monotonic() - began, within_s):
                raise PageFailed(f"it was never so: {expression}\n{self.seen()}\n{self.complaints}")
            time.sleep(0.05)

    def wait_for_text(self, text: str, within_s: float = SEEN_S) -> None:
        """Until this stands anywhere on the page."""
        self.wait_for(f"document.body.innerText.includes({json.dumps(text)})", within_s)

    def seen(self) -> str:
        return str(self.evaluate("document.body?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """The first element that the selector finds, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"!!{found} && !{found}.disabled")
        self.evaluate(f"{found}.click()")

    def fill(self, selector: str, value: str) -> None:
        """As if it were typed."""
        self.wait_for(f"!!document.querySelector({json.dumps(selector)})")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.evaluate("document.activeElement.select?.()")
        self.send("Input.insertText", {"text": value})

    def press(self, key: str, *, shift: bool = False) -> None:
        code = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}
        typed = {"Enter": "\r", " ": " "}.get(key, "")
        named = {"key": key, "code": "Space" if key == " " else key, "modifiers": 8 if shift else 0}
        named |= {"windowsVirtualKeyCode": code.get(key, 0)}
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": typed, **named})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", **named})

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, **features: str) -> None:
        """Media features, such as `color_scheme="dark"`."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.send("Emulation.setEmulatedMedia", {"features": wanted})

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """What is to be seen, as PNG."""
        arguments = {"format": "png", "captureBeyondViewport": whole}
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", arguments)["data"]))


@contextmanager
def driven_browser(*flags: str) -> Iterator[Browser]:
    """A browser of its own, with nothing in its storage."""
    executable, environment = browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        argv = [str(executable), *FLAGS, *flags, "--remote-debugging-pipe", "about:blank"]
        argv.append(f"--user-data-dir={profile}")
        pid, sends, reads = _spawn(argv, {**os.environ, **environment})
        try:
            yield Browser(sends, reads)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(sends)


def _spawn(argv: list[str], environment: dict[str, str]) -> tuple[int, int, int]:
    """Its process, and where it is written to and read from: it reads from 3 and writes to 4."""
    with ExitStack() as theirs:
        pipes = [*os.pipe(), *os.pipe()]
        # Out of the way of 3 and 4.
        high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in pipes]
        for number in (*pipes, high[0], high[3]):
            theirs.callback(os.close, number)
        nowhere = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (0, 1, 2)]
        moves = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[3], 4)]
        actions = [*nowhere, *moves]
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
    return pid, high[1], high[2]
