"""SleepingMachine: where a remote engine runs that has to be woken when a request wants it."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.config.wake_schema import WakeOnLan
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.sleep import Sleep
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.no_process import NoProcess
from trio_gateway.engine.process.process import EngineSpawnError, Launcher, Process, StopReport
from trio_gateway.lines import ENGINE_LOGGERS
from trio_gateway.magic_packet import magic_packet
from trio_gateway.tasks import beside, open_flat_nursery

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
        process = WokenProcess()
        async with beside(partial(self._wake, process, env, workdir, log)):
            yield process

    async def _wake(
        self, process: WokenProcess, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> None:
        assert self._client is not None, "a client is opened before anything is launched"
        sleep, limit_s = self._client.sleep, self._options.wake_timeout_s
        assert sleep is not None, "the client knows that it can be woken"
        await sleep.must_wake.wait()
        self._tell()
        tried = []
        async with open_flat_nursery() as nursery:
            for way in self._options.ways_to_wake:
                attempt = trio.CancelScope()
                if way.lan is not None:
                    nursery.start_soon(self._send_packets, way.lan, sleep, attempt, log)
                else:
                    launched = self._launch(way.command, env=env, workdir=workdir, log=log)
                    about = way.command[0], launched, process
                    nursery.start_soon(self._run_command, *about, sleep, attempt, log)
                with trio.move_on_after(limit_s):
                    await sleep.awake.wait()
                    return  # a command that runs on does so until the engine ends
                attempt.cancel(reason="it did not wake in time")
                tried.append(f"{self._tried}; {_CHECK_COMMAND if way.lan is None else _CHECK_LAN}")
            limit = f"{limit_s:g} s (wake_timeout)"
            what = "; ".join((sleep.last, *tried))
            raise StartFailed(f"its machine did not wake within {limit}: {what}", timed_out=True)

    async def _send_packets(
        self, wake: WakeOnLan, sleep: Sleep, attempt: trio.CancelScope, log: logging.Logger
    ) -> None:
        """Until it is awake."""
        packet, sent, fault = magic_packet(wake.mac), 0, ""
        told = "%s: nothing answers; a magic packet goes to %s every %g s"
        log.info(told, _named(log), wake, SEND_AGAIN_S)
        with attempt, trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            while not sleep.awake.is_set():
                try:
                    await sender.sendto(packet, (wake.broadcast, wake.port))
                    sent += 1
                except OSError as error:
                    if not fault:
                        told = "%s: no magic packet can be sent to %s: %s"
                        log.warning(told, _named(log), wake, error)
                    fault = f" (it could not always be sent: {error})"
                packets = "1 magic packet was" if sent == 1 else f"{sent} magic packets were"
                self._tried = f"{packets} sent to {wake}{fault}"
                with trio.move_on_after(SEND_AGAIN_S):
                    await sleep.awake.wait()

    async def _run_command(
        self,
        program: str,
        launched: AbstractAsyncContextManager[Process],
        woken: WokenProcess,
        sleep: Sleep,
        attempt: trio.CancelScope,
        log: logging.Logger,
    ) -> None:
        """Once. It may be what serves, or a way there, so it is not ended as long as it runs.

        Raises:
            StartFailed: it cannot be run, or fails before anything answers.
        """
        self._tried = f"wake_command {program} was run, and has not ended"
        log.info("%s: nothing answers; wake_command %s is run", _named(log), program)
        try:
            with attempt:
                async with launched as process:
                    woken.command = process
                    await process.exited.wait()
        except EngineSpawnError as error:
            raise StartFailed(f"wake_command: {error}") from None
        if attempt.cancelled_caught:
            return
        self._tried = f"wake_command {program} was run"
        if process.returncode == 0:
            return
        failure = f"wake_command {program} {process.status}"
        if not sleep.awake.is_set():
            raise StartFailed(failure, tuple(process.last_lines(LINES_IN_ERROR)))
        level = logging.INFO if woken.is_ending else logging.WARNING
        log.log(level, "%s: %s", _named(log), failure)


class WokenProcess(NoProcess):
    """In place of a process. `command`: the one that woke the machine, which may still run."""

    def __init__(self) -> None:
        super().__init__()
        self.command: Process | None = None
        self.is_ending = False

    async def stop(self, timeout_s: float) -> StopReport:
        self.is_ending = True
        if self.command is None or self.command.exited.is_set():
            return await super().stop(timeout_s)
        return await self.command.stop(timeout_s)

    async def kill(self) -> StopReport:
        self.is_ending = True
        if self.command is None or self.command.exited.is_set():
            return await super().kill()
        return await self.command.kill()


def _named(log: logging.Logger) -> str:
    """The engine whose log it is."""
    return log.name.removeprefix(ENGINE_LOGGERS)


def with_time_to_wake(variant: VariantConfig) -> VariantConfig:
    """So that the limit of its start leaves as much as the machine may take, which has its own."""
    times = variant.timeouts
    wakes = len(variant.options.ways_to_wake)
    startup_s = times.startup_s + wakes * variant.options.wake_timeout_s
    return msgspec.structs.replace(
        variant, timeouts=msgspec.structs.replace(times, startup_s=startup_s)
    )
