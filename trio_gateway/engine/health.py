"""HealthRecord: when an engine is ready, and whether it is still alive, as its answers show."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.sleep import was_woken
from trio_gateway.tasks import first_of

log = logging.getLogger(__name__)

# While it loads, health is polled at 5 % of the time waited so far, within these limits: a model
# that loads in 0.5 s is noticed 12 ms late on average, one that takes a minute costs four
# requests a second.
POLL_MIN_S = 0.01
POLL_MAX_S = 0.25
POLL_SHARE = 0.05
SAY_LOADING_S = 10.0  # a long load says so this often
MISSES_MAX = 3  # one may be bad luck: a machine that swaps, a lid that was closed
# A crash breaks the engine's connections a moment before its exit is seen.
EXIT_NEWS_S = 0.25


class RefusedAtStart(Exception):
    """The engine wants another key than it was sent; it answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class HealthRecord:
    """What an engine's health endpoint said so far; `last` is its last word, for messages.
    `timeouts`: as they are at that moment."""

    def __init__(
        self, name: str, client: EngineClient, timeouts: Callable[[], EngineTimeouts]
    ) -> None:
        self._name, self._client, self._timeouts = name, client, timeouts
        self.last = "no answer"
        self._beats = 0
        self._misses = 0

    async def until_good(self) -> None:
        """Returns at the first 200.

        Raises:
            RefusedAtStart: no time will bring one.
        """
        begun = trio.current_time()
        say_next_s = SAY_LOADING_S
        while True:
            health = await self._client.check_health(self._timeouts().health_check_s)
            if health.ok:
                self._beats = self._client.pulse.beats
                return
            if health.refused is not None:
                raise RefusedAtStart(health.refused)
            self.last = health.detail
            waited = trio.current_time() - begun
            if waited >= say_next_s:
                limit_s = self._timeouts().startup_s
                if was_woken(self._client.sleep):
                    log.info("%s: waking for %.0f s", self._name, waited)
                else:
                    log.info("%s: loading for %.0f of at most %g s", self._name, waited, limit_s)
                say_next_s += SAY_LOADING_S
            await trio.sleep(min(max(waited * POLL_SHARE, POLL_MIN_S), POLL_MAX_S))

    async def until_lost(self) -> str:
        """Watch a ready engine; why it must be given up, once it must."""
        return await first_of(self._until_silent, self._until_refusing, self._until_asleep)

    async def _until_silent(self) -> str:
        due = trio.current_time()
        while True:
            due = max(due + self._timeouts().health_check_s, trio.current_time())
            await trio.sleep_until(due)
            if (lost := await self.check()) is not None:
                return lost

    async def _until_refusing(self) -> str:
        """It takes requests, and answers none."""
        await self._client.refuses.wait()
        await trio.sleep(EXIT_NEWS_S)
        return f"the engine refuses requests ({self._client.last_refusal})"

    async def _until_asleep(self) -> str:
        if self._client.sleep is None:
            await trio.sleep_forever()
        await self._client.sleep.fell_asleep.wait()
        return "nothing answers any more where it is: the machine may sleep"

    async def check(self) -> str | None:
        """Ask a ready engine once; why it must be given up, if it must.

        A check is missed if the engine was asked and nothing at all came from it since the last
        one. Bytes of any answer are a sign of life: a busy engine may have no thread left for its
        health endpoint. An answer other than 200 is one as well, and a check that the gateway
        could not make, with no descriptor left, says nothing of the engine.
        """
        timeout_s = self._timeouts().health_check_s
        health = await self._client.check_health(timeout_s)
        self.last = health.detail
        before, self._beats = self._beats, self._client.pulse.beats
        if not health.silent or self._beats != before:
            self._misses = 0
            return None
        self._misses += 1
        log.warning("%s: missed health check %d: %s", self._name, self._misses, health.detail)
        if self._misses < MISSES_MAX:
            return None
        silent_s = MISSES_MAX * timeout_s
        return f"the engine did not answer {MISSES_MAX} health checks in a row ({silent_s:g} s)"
