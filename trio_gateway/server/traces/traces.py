"""Traces: sends the spans of requests that are over to a collector.

A request's end costs a note in a queue. One task makes spans of what is noted, and sends them. A
collector that is slow or dead costs traces, with a line in the log, and never a request.
"""

from __future__ import annotations

import logging
import platform
import secrets
import ssl
from collections import Counter, deque
from contextlib import AsyncExitStack
from itertools import islice

import httpx
import trio

import trio_gateway
from trio_gateway.bus import Bus
from trio_gateway.config.schema import TracesConfig
from trio_gateway.server.api.trace_context import Sampler
from trio_gateway.server.records.request_record import RequestRecord
from trio_gateway.server.traces.otlp import CONTENT_TYPE, encode, rejected
from trio_gateway.server.traces.spans import Span, Value, spans_of
from trio_gateway.server.traces.tally import Loss, TraceTally
from trio_gateway.tasks import run_and_finish

log = logging.getLogger(__name__)

BATCH_S = 1.0  # for others to come, before what is noted is sent
BATCH_MAX = 50  # requests, which keep the event loop busy for 4 ms
WAITING_MAX = 2000  # requests, for a collector that is slow; beyond, new ones are lost
SEND_S = 10.0  # for the answer to one batch
RETRY_S = 5.0  # after an error
FLUSH_S = 2.0  # at the end, for what is noted
_SAID_MAX = 200  # characters of a collector's answer
# What the OTLP specification says may be sent again.
_AGAIN = frozenset({429, 502, 503, 504})


class Unreachable(Exception):
    """The collector took nothing; it may do so later."""


class Refused(Exception):
    """The collector does not want what it got, and would not the next time."""


class Traces:
    """`run` in a task. `sampler`: decides of which requests there are any.

    Raises:
        ImportError: on import of this module, without the extra `otel`.
    """

    def __init__(self, bus: Bus, config: TracesConfig, tally: TraceTally) -> None:
        self._bus, self._config, self._tally = bus, config, tally
        self.sampler = Sampler(config.sample)
        self._waiting: deque[RequestRecord] = deque()
        self._news, self._closing = trio.Event(), trio.Event()
        self._fault = ""
        self._lost: Counter[Loss] = Counter()  # since the log was told
        self._resource: dict[str, Value] = {
            "service.name": "trio-gateway",
            "service.version": trio_gateway.__version__,
            "service.instance.id": secrets.token_hex(8),
            "host.name": platform.node(),
        }
        self._where = config.endpoint.partition("?")[0]  # what follows may be a key

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled; then what is noted, within a short time."""
        log.info("traces are sent to %s", self._where)
        with self._bus.listening(RequestRecord, self._note):
            await run_and_finish(self._send_all, self._close, FLUSH_S, task_status)

    def _close(self) -> None:
        self._closing.set()
        self._news.set()

    def _note(self, record: RequestRecord) -> None:
        """For each request, so it does no more than this."""
        if record.trace is None or record.trace.spans is None:
            return
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(record)
            self._news.set()
        else:
            self._lose(Loss.QUEUE_FULL, 1)

    async def _send_all(self, until: trio.CancelScope) -> None:
        with until:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(self._client())
                is_good = True
                while not self._closing.is_set():
                    if not self._waiting:
                        self._news = trio.Event()
                        await self._news.wait()
                    if len(self._waiting) < BATCH_MAX or not is_good:
                        with trio.move_on_after(BATCH_S if is_good else RETRY_S):
                            await self._closing.wait()
                    is_good = not self._waiting or await self._try_to_send(client)
                while self._waiting and await self._try_to_send(client):
                    pass
        if left := len(self._waiting):
            self._lose(Loss.STOPPED, left)
            log.error("the traces of the last %d requests are not sent", left)

    def _client(self) -> httpx.AsyncClient:
        """Neither proxies nor anything else of the environment: the configuration says it all."""
        is_secure = self._config.endpoint.startswith("https:")
        verify = ssl.create_default_context() if is_secure else False
        transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)
        headers = {name: value.reveal() for name, value in self._config.headers.items()}
        own = {"user-agent": f"trio-gateway/{trio_gateway.__version__}", **headers}
        return httpx.AsyncClient(transport=transport, headers=own, timeout=None, trust_env=False)

    async def _try_to_send(self, client: httpx.AsyncClient) -> bool:
        """Whether it is worth going on: what is refused is lost, and is no reason to wait."""
        batch = [*islice(self._waiting, BATCH_MAX)]
        try:
            await self._send(client, batch)
        except Unreachable as error:
            if not self._fault:  # one line, not one for each batch
                log.error("no traces can be sent to %s: %s", self._where, error)
            self._fault = str(error)
            return False
        except Refused as error:
            if not self._fault:
                log.error("%s refuses traces: %s", self._where, error)
            self._fault = str(error)
            self._lose(Loss.REFUSED, len(batch))
        except Exception as error:
            log.error("a bug in the gateway; please report it: traces are lost", exc_info=error)
            self._lose(Loss.REFUSED, len(batch))
        else:
            self._tally.sent += len(batch)
            self._say_it_works()
        for _ in batch:
            self._waiting.popleft()
        return True

    def _say_it_works(self) -> None:
        lost = sum(self._lost.values())
        if self._fault:
            more = f"; those of {lost} requests are lost" if lost else ""
            log.warning("traces are sent to %s again%s", self._where, more)
        elif lost:
            log.error("the traces of %d requests are lost: the collector is too slow", lost)
        self._fault = ""
        self._lost.clear()

    async def _send(self, client: httpx.AsyncClient, batch: list[RequestRecord]) -> None:
        """Raises Unreachable, Refused."""
        body = encode(_spans_of(batch), self._resource, trio_gateway.__version__)
        await trio.lowlevel.checkpoint()  # that took a while
        try:
            with trio.fail_after(SEND_S):
                answer = await client.post(
                    self._config.endpoint, content=body, headers={"content-type": CONTENT_TYPE}
                )
        except trio.TooSlowError:
            raise Unreachable(f"no answer within {SEND_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(_reason(error)) from None
        if answer.status_code in _AGAIN:
            raise Unreachable(f"HTTP {answer.status_code}")
        if not answer.is_success:
            said = " ".join(answer.text[:_SAID_MAX].split())
            raise Refused(f"HTTP {answer.status_code}{': ' if said else ''}{said}")
        count, why = rejected(answer.content)
        if count:
            log.warning("%s did not take %d spans: %s", self._where, count, why[:_SAID_MAX])

    def _lose(self, why: Loss, count: int) -> None:
        self._lost[why] += count
        self._tally.lost[why] += count


def _reason(error: BaseException) -> str:
    """Of an error that may have none in its own words: of TLS it is two causes away."""
    told: BaseException | None = error
    while told is not None:
        if text := str(told):
            return text
        told = told.__cause__ or told.__context__
    return type(error).__name__


def _spans_of(batch: list[RequestRecord]) -> list[Span]:
    """What cannot be made into spans is a bug, and costs its request's only."""
    made: list[Span] = []
    for record in batch:
        try:
            made += spans_of(record)
        except Exception as error:
            log.error("a bug in the gateway; please report it: no spans", exc_info=error)
    return made
