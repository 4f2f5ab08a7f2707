"""`trio-gateway top`: engines, queue and requests, live in the terminal."""

from __future__ import annotations

import os
import re
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from trio_gateway.commands.asking import asked_gateway, asking_options, json_option
from trio_gateway.stop_signals import StopSignals

if TYPE_CHECKING:
    from trio_gateway.commands.gateway_client import GatewayClient

REFRESH_S = 0.5
RETRY_S = 2.0
_KEYS = re.compile(rb"\x1b[\[O].|.", re.DOTALL)  # several may come at once
_ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}


@click.command()
@asking_options
@json_option
@click.pass_obj
def top(signals: StopSignals, path: Path | None, key_file: TextIO | None, *, as_json: bool) -> None:
    """Watch engines, queue and requests, live. `--json` prints the feed, an event a line."""
    with asked_gateway(path, key_file) as gateway:
        import trio

        watching = _print_events if as_json else _watch
        if not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("it needs a terminal; `status` prints the same once")
        trio.run(watching, gateway, signals)


async def _print_events(gateway: GatewayClient, signals: StopSignals) -> None:
    import json

    from trio_gateway.commands.feed_state import events_in
    from trio_gateway.commands.gateway_failures import ended
    from trio_gateway.commands.stopping import until_stopped

    async def print_them() -> None:
        async with gateway.lines("/gateway/events") as lines:
            async for event in events_in(lines):
                click.echo(json.dumps({"event": event.name, "data": event.data}))
        raise ended(gateway.place)  # only a gateway that stops ends its feed

    await until_stopped(signals, print_them)


async def _watch(gateway: GatewayClient, signals: StopSignals) -> None:
    from trio_gateway.commands.stopping import until_stopped
    from trio_gateway.tasks import open_flat_nursery

    screen = _Screen(gateway)

    async def watch() -> None:
        async with gateway.lines("/gateway/events") as lines:  # or say at once that none answers
            await screen.follow_once(lines, until_first=True)
        with _raw_terminal():
            async with open_flat_nursery() as nursery:
                nursery.start_soon(screen.follow)
                nursery.start_soon(screen.draw)
                await screen.obey_keys()
                nursery.cancel_scope.cancel(reason="the user left")

    await until_stopped(signals, watch)


class _Screen:
    def __init__(self, gateway: GatewayClient) -> None:
        from trio_gateway.commands.feed_state import FeedState
        from trio_gateway.commands.top_view import Choice

        self._gateway, self._state, self._choice = gateway, FeedState(), Choice()
        self._note = ""
        self._is_paused = self._shows_models = False

    async def follow_once(self, lines: AsyncIterator[str], *, until_first: bool = False) -> None:
        from trio_gateway.commands.feed_state import events_in

        async for event in events_in(lines):
            self._state.apply(event)
            if until_first:
                return

    async def follow(self) -> None:
        """Read the feed, again and again: a gateway may be started anew."""
        import trio

        from trio_gateway.commands.gateway_failures import GatewayFailed, ended

        while True:
            try:
                async with self._gateway.lines("/gateway/events") as lines:
                    self._note = ""
                    await self.follow_once(lines)
                self._note = str(ended(self._gateway.place))
            except GatewayFailed as error:
                self._note = str(error)
            await trio.sleep(RETRY_S)

    async def draw(self) -> None:
        import trio
        from rich.console import Console
        from rich.live import Live

        from trio_gateway.commands.top_view import view

        console = Console(markup=False, emoji=False, highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                if not self._is_paused:
                    shown = view(
                        self._state, self._choice, time.time(), console.size, self._note,
                        shows_models=self._shows_models,
                    )  # fmt: skip
                    live.update(shown, refresh=True)
                await trio.sleep(REFRESH_S)

    async def obey_keys(self) -> None:
        """Until the user leaves."""
        import trio

        while True:
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            pressed = os.read(sys.stdin.fileno(), 1024)
            for key in _KEYS.findall(pressed):
                if key in (b"q", b"Q", b"\x03", b"\x1b"):
                    return
                await self._obey(_ARROWS.get(key, key.decode("ascii", "replace").lower()))
            if not pressed:
                return

    async def _obey(self, key: str) -> None:
        match key:
            case "up" | "k":
                self._choice.move(self._state, -1)
            case "down" | "j":
                self._choice.move(self._state, 1)
            case "p" | " ":
                self._is_paused = not self._is_paused
            case "m":
                self._shows_models = not self._shows_models
            case "c" if self._choice.id is not None:
                await self._cancel(self._choice.id)

    async def _cancel(self, request_id: str) -> None:
        import trio

        from trio_gateway.commands.gateway_failures import GatewayFailed

        try:
            await trio.to_thread.run_sync(
                self._gateway.post, f"/gateway/requests/{request_id}/cancel"
            )
            self._note = f"{request_id} is cancelled."
        except GatewayFailed as error:
            self._note = str(error)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys as they are pressed, and not shown. Signals stay signals."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
