"""`trio-gateway yield`: makes room on the GPU for another program, and keeps it while that runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from trio_gateway.commands import words
from trio_gateway.commands.asking import asked_gateway, asking_options, json_option, print_json

if TYPE_CHECKING:
    import trio

    from trio_gateway.commands.gateway_client import GatewayClient

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128  # as shells have it
_PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_TYPED = (signal.SIGINT, signal.SIGQUIT)


@click.command(name="yield")
@asking_options
@click.option("--pool", metavar="NAME", help="Whose memory. Default: the pool of all models, or "
              "`primary`.")  # fmt: skip
@click.option("--device", metavar="DEVICE", help="Of the pool's devices, such as cuda:0.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N",
              help="The room is kept for so long, or while COMMAND runs.")  # fmt: skip
@json_option
@click.argument("memory")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def yield_(
    path: Path | None,
    key_file: TextIO | None,
    pool: str | None,
    device: str | None,
    seconds: float | None,
    memory: str,
    command: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Make room for another program: MEMORY, such as 12GiB, is kept free of engines while COMMAND
    runs.

    \b
        trio-gateway yield 12GiB -- python main.py --listen

    Idle engines leave at once, busy ones once they are done. The command starts when the room is
    there; its exit code is this one's. Without COMMAND, --seconds says for how long.
    """
    from trio_gateway.commands.gateway_failures import NoGateway

    if not command and seconds is None:
        raise click.UsageError("name a COMMAND, after --, or say --seconds")
    found = shutil.which(command[0]) if command else None
    if command and found is None:
        click.echo(f"trio-gateway: {command[0]}: no such command", err=True)
        sys.exit(NOT_FOUND)
    wanted = {
        "memory": int(memory) if memory.isdecimal() else memory, "pool": pool, "device": device,
        "seconds": seconds, "stream": bool(command),
    }  # fmt: skip
    body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
    with asked_gateway(path, key_file) as gateway:
        if not command:
            _ask(gateway, body, as_json=as_json)
            return
        import trio

        try:
            code = trio.run(_hold_and_run, gateway, body, [*command])
        except NoGateway:
            click.echo("trio-gateway: no gateway runs, so nothing has to make room", err=True)
            code = trio.run(_run_without, [*command])
    sys.exit(code)


def _ask(gateway: GatewayClient, body: bytes, *, as_json: bool) -> None:
    row = gateway.post("/gateway/yield", body, answer_timeout_s=None)
    if as_json:
        print_json(row)
        return
    size = words.size(row["memory_bytes"])
    click.echo(
        f"{size} of {_place(row)} are free until {words.clock(row['ends_at_s'])}. Before that, "
        f"`DELETE /gateway/yield/{row['id']}` ends it."
    )


def _place(row: dict[str, object]) -> str:
    return f"{row['device']} (pool {row['pool']})" if row["device"] else f"the pool {row['pool']}"


async def _run_without(command: Sequence[str]) -> int:
    async with _passing_on() as child:
        return await child.run(command)


async def _hold_and_run(gateway: GatewayClient, body: bytes, command: Sequence[str]) -> int:
    from trio_gateway.tasks import open_flat_nursery

    async with _passing_on() as child, gateway.lines("/gateway/yield", content=body) as lines:
        if not await _until_room(gateway, lines, child):
            return BY_SIGNAL + child.received
        async with open_flat_nursery() as nursery:
            nursery.start_soon(_follow, lines)
            code = await child.run(command)
            nursery.cancel_scope.cancel(reason="the command has ended")
    return code


async def _until_room(gateway: GatewayClient, lines: AsyncIterator[str], child: _Child) -> bool:
    """False: a signal came first."""
    import trio

    from trio_gateway.commands.gateway_failures import GatewayFailed, ended

    with trio.CancelScope() as scope:
        child.waiting = scope
        async for line in lines:
            row = json.loads(line) if line.strip() else {}
            match row.get("state"):
                case "waiting" if row["waits_for"]:
                    click.echo(f"waiting for {', '.join(row['waits_for'])} to leave", err=True)
                case "held":
                    size = words.size(row["memory_bytes"])
                    click.echo(f"{size} of {_place(row)} are free", err=True)
                    child.waiting = None
                    return True
                case "over":
                    raise GatewayFailed(f"there is no room: {row['reason']}")
        raise ended(gateway.place)
    return False


async def _follow(lines: AsyncIterator[str]) -> None:
    """The command goes on, whatever comes: it has begun."""
    from trio_gateway.commands.gateway_failures import GatewayFailed

    reason = "the gateway has ended"
    try:
        async for line in lines:
            row = json.loads(line) if line.strip() else {}
            if row.get("state") == "over":
                reason = row["reason"]
                break
    except GatewayFailed as error:
        reason = str(error)
    click.echo(f"trio-gateway: the memory is not kept free any more: {reason}", err=True)


class _Child:
    """The command. `waiting`: what a signal ends before it runs; `received`: the last one."""

    def __init__(self) -> None:
        self.waiting: trio.CancelScope | None = None
        self.received = 0
        self._process: trio.Process | None = None

    async def run(self, command: Sequence[str]) -> int:
        """Its exit code, as a shell has it."""
        import trio

        try:
            self._process = await trio.lowlevel.open_process([*command], env={**os.environ})
        except OSError as error:
            click.echo(f"trio-gateway: {command[0]}: {error.strerror}", err=True)
            return NOT_EXECUTABLE
        code = await self._process.wait()
        return code if code >= 0 else BY_SIGNAL - code

    def take(self, number: int) -> None:
        self.received = number
        if self.waiting is not None:
            self.waiting.cancel(reason="a signal")
        # What is typed in a terminal, its programs get by themselves.
        elif self._process is not None and not (number in _TYPED and _is_in_foreground()):
            self._process.send_signal(number)


@asynccontextmanager
async def _passing_on() -> AsyncIterator[_Child]:
    """Signals are the command's while it runs."""
    import trio

    from trio_gateway.tasks import beside

    child = _Child()

    async def pass_on() -> None:
        async for number in received:
            child.take(number)

    with trio.open_signal_receiver(*_PASSED_ON) as received:
        async with beside(pass_on):
            yield child


def _is_in_foreground() -> bool:
    """Of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
