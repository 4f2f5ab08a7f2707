"""SleepingMachine: where a remote engine runs that has to be woken when a request wants it."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.config.wake_schema import WakeOnLan
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.no_process import NoProcess
from trio_gateway.engine.process.process import EngineSpawnError, Launcher
from trio_gateway.magic_packet import magic_packet
from trio_gateway.tasks import beside, first_of

SEND_AGAIN_S = 3.0  # UDP may be lost, and a card may not listen yet while its machine falls asleep
LINES_IN_ERROR = 5
_CHECK_LAN = (
    "check that Wake-on-LAN is on in its firmware and for its network card, that `broadcast` "
    "reaches its network, and that the server starts with it"
)
_CHECK_COMMAND = "check that the command wakes it, and that the server starts with it"


class SleepingMachine:
    """Of one engine; see `Elsewhere`. It is left alone unless nothing answers there. With several,
    one after the other is woken, until something answers.

    Args:
        launch: for the `wake_command`.
        tell: called when it has to be woken.
    """

    def __init__(self, options: EngineOptions, launch: Launcher, tell: Callable[[], None]) -> None:
        self._options, self._launch, self._tell = options, launch, tell
        self._client: EngineClient | None = None
        self._tried = ""  # what is done to wake it, for the error if it does not

    async def open_client(self, kind: EngineKind, options: EngineOptions) -> EngineClient:
        """As in Elsewhere. Raises OSError."""
        self._client = kind.client(options.urls[0], options)
        return self._client

    @asynccontextmanager
    async def open(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[NoProcess]:
        """A Launcher: wakes it while the block runs, if it has to be.

        Raises:
            StartFailed: it did not wake.
        """
        async with beside(partial(self._wake, env, workdir, log)):
            yield NoProcess()

    async def _wake(self, env: Mapping[str, str], workdir: Path, log: logging.Logger) -> None:
        assert self._client is not None, "a client is opened before anything is launched"
        sleep, limit_s = self._client.sleep, self._options.wake_timeout_s
        assert sleep is not None, "the client knows that it can be woken"
        await sleep.must_wake.wait()
        self._tell()
        tried = []
        for way in self._options.ways_to_wake:
            if way.lan is not None:
                wake = partial(self._send_packets, way.lan, log)
            else:
                wake = partial(self._run_command, way.command, env, workdir, log)
            with trio.move_on_after(limit_s):
                await first_of(sleep.awake.wait, wake)
                return
            tried.append(f"{self._tried}; {_CHECK_COMMAND if way.lan is None else _CHECK_LAN}")
        limit = f"{limit_s:g} s (wake_timeout)"
        raise StartFailed(
            f"its machine did not wake within {limit}: {'; '.join((sleep.last, *tried))}",
            timed_out=True,
        )

    async def _send_packets(self, wake: WakeOnLan, log: logging.Logger) -> None:
        """Until it is cancelled."""
        packet, sent, fault = magic_packet(wake.mac), 0, ""
        log.info("nothing answers: a magic packet goes to %s every %g s", wake, SEND_AGAIN_S)
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            while True:
                try:
                    await sender.sendto(packet, (wake.broadcast, wake.port))
                    sent += 1
                except OSError as error:
                    if not fault:
                        log.warning("no magic packet can be sent to %s: %s", wake, error)
                    fault = f" (it could not always be sent: {error})"
                packets = "1 magic packet was" if sent == 1 else f"{sent} magic packets were"
                self._tried = f"{packets} sent to {wake}{fault}"
                await trio.sleep(SEND_AGAIN_S)

    async def _run_command(
        self, command: Sequence[str], env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> None:
        """Once, then wait until it is cancelled.

        Raises:
            StartFailed: it cannot be run, or fails.
        """
        program = command[0]
        self._tried = f"wake_command {program} was run, and has not ended"
        log.info("nothing answers: wake_command %s is run", program)
        try:
            async with self._launch(command, env=env, workdir=workdir, log=log) as process:
                await process.exited.wait()
        except EngineSpawnError as error:
            raise StartFailed(f"wake_command: {error}") from None
        if process.returncode != 0:
            lines = tuple(process.last_lines(LINES_IN_ERROR))
            raise StartFailed(f"wake_command {program} {process.status}", lines)
        self._tried = f"wake_command {program} was run"
        await trio.sleep_forever()


def with_time_to_wake(variant: VariantConfig) -> VariantConfig:
    """So that the limit of its start leaves as much as the machine may take, which has its own."""
    times = variant.timeouts
    wakes = len(variant.options.ways_to_wake)
    startup_s = times.startup_s + wakes * variant.options.wake_timeout_s
    return msgspec.structs.replace(
        variant, timeouts=msgspec.structs.replace(times, startup_s=startup_s)
    )
