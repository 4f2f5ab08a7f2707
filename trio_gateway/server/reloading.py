"""Reloader: reads the configuration anew, and has another one taken over, if it has no mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import trio

from trio_gateway.config.difference import Change, Kind, changes
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig

log = logging.getLogger(__name__)


class Reload(msgspec.Struct, frozen=True):
    """What came of it. `changes`: in words, one each. `needs_restart`: some of them take effect at
    the next start. `notes`: what the new configuration is remarked on."""

    changes: tuple[str, ...]
    needs_restart: bool
    notes: tuple[str, ...]


class Reloader:
    """One reload after the other.

    Args:
        config: the one in force.
        take_over: makes another one that; it does not wait.
    """

    def __init__(self, config: GatewayConfig, take_over: Callable[[GatewayConfig], None]) -> None:
        self.config, self._take_over = config, take_over
        self._turn = trio.Lock()

    async def reload(self, why: str) -> Reload:
        """The file is read and checked in a thread, as a whole, before anything changes.

        Raises:
            ConfigError: it has mistakes, and all stays as it was.
        """
        async with self._turn:
            source = self.config.source
            log.info("%s: reading %s anew", why, source)
            try:
                config, _ = await trio.to_thread.run_sync(
                    load_config, source, abandon_on_cancel=True
                )
            except ConfigError as error:
                log.error("the configuration stays as it was, as %s has mistakes:", source)
                for mistake in error.mistakes:
                    log.error("%s", mistake)
                raise
            found = changes(self.config, config)
            self._take_over(config)
            self.config = config
        _say(found, config)
        return Reload(
            changes=tuple(map(str, found)),
            needs_restart=any(change.kind is Kind.LATER for change in found),
            notes=config.notes,
        )


def _say(found: tuple[Change, ...], config: GatewayConfig) -> None:
    if not found:
        log.info("nothing has changed in %s", config.source)
    for change in found:
        log.log(logging.WARNING if change.kind is Kind.LATER else logging.INFO, "%s", change)
    for note in config.notes:
        log.info("%s: %s", config.source, note)
