"""Reloader: reads the configuration anew, and has another one taken over, if it has no mistakes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import msgspec
import trio

from trio_gateway.config.difference import Change, Kind, changes
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.missing import missing
from trio_gateway.config.readable_files import readable_secrets
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.tasks import beside

Move = Callable[[GatewayConfig, Callable[[], None]], Awaitable[None]]
_Stamp = tuple[int, int, int] | None
_Stamps = dict[Path, _Stamp]

log = logging.getLogger(__name__)

WATCH_S = 1.0
SETTLED_S = 0.3
CLOCK_TICK_NS = 20_000_000  # files have a time that is behind the clock by up to a kernel's tick
LEFT_ALONE_S = 2.0  # of a model's file, which may be written for an hour


class Reload(msgspec.Struct, frozen=True):
    """What came of it. `changes`: in words, one each. `needs_restart`: some of them take effect at
    the next start. `notes`: what is to be said of the configuration, and what it lacks."""

    changes: tuple[str, ...]
    needs_restart: bool
    notes: tuple[str, ...]


class Reloader:
    """One reload after the other.

    Args:
        config: the one in force.
        take_over: makes another one that; it does not wait.
        closing: the gateway stops, and takes over nothing any more.
        compose: adds to what the file has the models of other gateways.
    """

    def __init__(
        self,
        config: GatewayConfig,
        take_over: Callable[[GatewayConfig], None],
        closing: trio.Event,
        compose: Callable[[GatewayConfig], GatewayConfig] = lambda config: config,
    ) -> None:
        self.config, self._take_over, self._closing = config, take_over, closing
        self._started = self._as_read = config
        self._compose = compose
        self.mistakes: tuple[str, ...] = ()  # of the file as it was read last
        self._tried: tuple[Path, ...] = ()  # what it then consisted of
        self._turn = trio.Lock()
        self.announced: Callable[[], AbstractContextManager[None]] = nullcontext  # around each
        self._move: Move | None = None
        self._known = _stamps(self._files)  # at once: what changes from here on is news

    def serves(self, move: Move) -> None:
        """The server can `move` to the addresses of another configuration, and calls the function
        that switches to that when they are ready; what it raises as ConfigError is a mistake."""
        self._move = move

    async def reload(self, why: str) -> Reload:
        """The file is read and checked in a thread, as a whole, before anything changes.

        Raises:
            ConfigError: it has mistakes, or its addresses cannot be used, and all stays as it was.
        """
        async with self._turn:
            with self.announced():
                return await self._reload(why)

    async def _reload(self, why: str) -> Reload:
        source = self.config.source
        log.info("%s: reading %s anew", why, source)
        try:
            config, notes = await trio.to_thread.run_sync(_read, source, abandon_on_cancel=True)
            found = await self._switch_to(self._compose(config))
            self._as_read = config
        except ConfigError as error:
            log.error("the configuration stays as it was, as %s has mistakes:", source)
            for mistake in error.mistakes:
                log.error("%s", mistake)
            self.mistakes, self._tried = tuple(error.mistakes), error.files
            raise
        self.mistakes, self._tried = (), ()
        if found is None:
            log.info("the gateway is stopping: the configuration stays as it was")
            return Reload((), needs_restart=False, notes=())
        _say(found, notes, config.source)
        return Reload(
            changes=tuple(map(str, found)),
            needs_restart=any(change.kind is Kind.LATER for change in found),
            notes=notes,
        )

    async def _switch_to(self, config: GatewayConfig) -> tuple[Change, ...] | None:
        """What has changed by it; None: the gateway stops. Raises ConfigError."""
        if self._closing.is_set():
            return None
        found = changes(self.config, config, self._started, moves=self._move is not None)

        def switch() -> None:
            self._take_over(config)
            self.config = config

        if self._move is None:
            switch()
        else:
            await self._move(config, switch)
        return found

    async def recompose(self, take_over: Callable[[GatewayConfig], None]) -> None:
        """Take over what other gateways have by now. Nothing else changes."""
        async with self._turn:
            config = self._compose(self._as_read)
            if config.models == self.config.models or self._closing.is_set():
                return
            found = changes(self.config, config, self._started)
            take_over(config)
            self.config = config
        for change in found:
            log.info("%s", change)

    async def try_to_reload(self, why: str) -> None:
        """The same for those who read the log: mistakes are there."""
        with suppress(ConfigError):
            await self.reload(why)

    async def watch(self, began_ns: int) -> None:
        """Reload when a file of the configuration, or in a folder of `discover`, has changed and
        then been left alone for a moment, as an editor may write it in pieces; until the gateway
        stops. `began_ns`: Unix time before the first reading; what has changed since is read again.
        """
        before = await trio.to_thread.run_sync(_stamps, self._files, began_ns - CLOCK_TICK_NS)
        self._known = {file: stamp for file, stamp in self._known.items() if file in before}
        async with beside(self._watch):
            await self._closing.wait()

    async def _watch(self) -> None:
        models = Settling()
        while True:
            await trio.sleep(WATCH_S)
            seen = await trio.to_thread.run_sync(_stamps, self.config.watched)
            if models.have_settled(seen, trio.current_time()):
                await self.try_to_reload("a folder of models has changed")
            seen = await self._look()
            if seen == self._known:
                continue
            while True:
                await trio.sleep(SETTLED_S)
                before, seen = seen, await self._look()
                if seen == before:
                    break
            began_ns = time.time_ns() - CLOCK_TICK_NS
            await self.try_to_reload("the file has changed")
            # It may include others now, which may have been written after they were read.
            others = tuple(file for file in self._files if file not in seen)
            read = await trio.to_thread.run_sync(_stamps, others, began_ns)
            self._known = {f: s for f, s in {**read, **seen}.items() if f in self._files}

    @property
    def _files(self) -> tuple[Path, ...]:
        """Of the configuration in force, and of the one that has mistakes, which may be mended in
        a file that only that includes."""
        return tuple(dict.fromkeys((self.config.source, *self.config.files, *self._tried)))

    async def _look(self) -> _Stamps:
        """In a thread: a folder may be on another machine."""
        return await trio.to_thread.run_sync(_stamps, self._files)


class Settling:
    """Tells when files have changed and then been left alone: each by itself, so that one that is
    still being loaded down holds up none of the others. Pure."""

    def __init__(self) -> None:
        self._known: _Stamps = {}
        self._since: dict[Path, tuple[_Stamp, float]] = {}

    def have_settled(self, seen: _Stamps, now_s: float) -> bool:
        """Whether any has; once for each change. One that was not seen before has not changed."""
        settled = False
        for file, stamp in seen.items():
            if stamp == self._known.setdefault(file, stamp):
                self._since.pop(file, None)
                continue
            last = self._since.get(file)
            if last is None or last[0] != stamp:
                self._since[file] = stamp, now_s
            elif now_s - last[1] >= LEFT_ALONE_S:
                settled = True
        if settled:  # what is still being written has been looked at as it is now
            self._known, self._since = dict(seen), {}
        return settled


def _stamps(files: Sequence[Path], until_ns: int | None = None) -> _Stamps:
    """What changes with a file: when it was written, its size and number. None: it is not there.
    `until_ns`: leaves out those that were put there or changed since, in Unix time."""
    found: _Stamps = dict.fromkeys(files)
    for file in files:
        with suppress(OSError):
            seen = file.stat()
            found[file] = seen.st_mtime_ns, seen.st_size, seen.st_ino
            if until_ns is not None and seen.st_ctime_ns >= until_ns:
                del found[file]
    return found


def _read(source: Path) -> tuple[GatewayConfig, tuple[str, ...]]:
    """With what is to be said of it.

    Raises:
        ConfigError
    """
    from trio_gateway.config.shown import hider  # 0.1 MB, which most runs do not need

    config, _ = load_config(source)
    lacks = [lack.text for lack in missing(config)]
    hide = hider(config, os.environ)
    return config, tuple(map(hide, (*config.notes, *readable_secrets(config), *lacks)))


def _say(found: Sequence[Change], notes: Sequence[str], source: Path) -> None:
    if not found:
        log.info("nothing has changed in %s", source)
    for change in found:
        log.log(logging.WARNING if change.kind is Kind.LATER else logging.INFO, "%s", change)
    for note in notes:
        log.warning("%s: %s", source, note)
