"""EngineClient: what the gateway asks of any engine, over HTTP."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar
from urllib.parse import urlsplit

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.facts import (
    EngineFacts,
    Health,
    SlotFile,
    SlotRefused,
    SlotState,
)
from trio_gateway.engine.clients.headers import for_client, for_elsewhere, is_loopback
from trio_gateway.engine.clients.sleep import Sleep, has_fallen_asleep
from trio_gateway.engine.errors import (
    KEY_REFUSED,
    EngineDisconnected,
    EngineLost,
    EngineTalksGarbage,
    ExchangeAborted,
    OutOfSockets,
)
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.connections import Connections
from trio_gateway.engine.http.control import Answer, ControlClient
from trio_gateway.engine.http.exchange import Exchange, Header, Pulse
from trio_gateway.engine.http.idle import IdleConnections
from trio_gateway.engine.http.opener import AddressOpener, Opener
from trio_gateway.engine.http.socket import EngineSocket
from trio_gateway.engine.sites.row import SiteRow
from trio_gateway.rawjson import Members

NO_OPTIONS = EngineOptions()
REFUSALS_MAX = 2  # requests; the second try of one is not counted, as the request may be to blame
NOT_THERE = (404, 405, 501)


class EngineClient(abc.ABC):
    """Speaks to one engine at `base_url` (`http://host:port`). Close it with `aclose`.

    `options` are the keys of the configuration that only some types have.

    `health_targets`: where an engine of the type may say that it is ready, the first to ask first.
    `refuses` is set once it took `refusals_max` requests in a row without an answer to any;
    `last_refusal` says how.

    `key_refused`: one of KEY_REFUSED, if it answered that to a question of the gateway's.

    `served_name`: what the engine calls its model; None: what the client calls it will do.
    `prefix`: what stands before all of its paths.
    `is_remote`: somebody else runs it, perhaps another gateway.
    `sleep`: of a machine that can be woken; None: it cannot.

    `routes_by_affinity`: its engines have several places behind one address. It gets a request with
    the header AFFINITY, if something tells its conversation: the same for all that belong together.
    """

    health_targets: ClassVar[Sequence[str]] = ("/health",)
    routes_by_affinity = False
    served_name: str | None = None
    prefix = ""
    is_remote = False
    key_refused: int | None = None
    refusals_max = REFUSALS_MAX
    sleep: Sleep | None = None

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self.base_url, self.options = base_url, options
        self.host, self.port = parts.hostname, parts.port or 80
        self._is_here = is_loopback(self.host)
        self.idle = IdleConnections()
        self.connections = Connections(self.idle)  # those of requests
        self.pulse: Pulse = self.connections.pulse  # beats with whatever is read from the engine
        # The gateway's own, such as saving a slot.
        self._questions = Connections(self.idle, self.pulse)
        self._opener: Opener = AddressOpener(self.host, self.port)
        self._own_headers = _key_headers(options)
        self._control = ControlClient(self._opener, self._questions, self._own_headers)
        self._health_targets = [*self.health_targets]
        if options.health_path:
            self._health_targets = [options.health_path]
        self.refuses = trio.Event()
        self.last_refusal = ""
        self._refusals = 0
        self._refused_last: object = None  # the body of it, or what stands for one

    @property
    def is_given_up(self) -> bool:
        """Whether the engine is about to end, for how it treats requests."""
        return self.refuses.is_set() or has_fallen_asleep(self.sleep)

    async def check_health(self, timeout_s: float) -> Health:
        """One health request, at the first of the targets that the engine has; never raises. It is
        also what closes connections that have been idle for too long."""
        self.idle.drop_old()
        try:
            about = self._control, self._health_targets, timeout_s, self.prefix
            answer, target = await ask_health(*about)
        except EngineLost as error:
            silent = not isinstance(error, OutOfSockets | EngineTalksGarbage)
            return Health(False, str(error), silent=silent)
        status = answer.status
        refused = status if status in KEY_REFUSED else None
        return Health(status == 200, f"HTTP {status} at {target}", refused=refused)

    @abc.abstractmethod
    async def read_facts(self, timeout_s: float) -> EngineFacts:
        """Slots and context of a ready engine; never raises."""

    @abc.abstractmethod
    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        """The exact number of prompt tokens of a request, as the engine counts them; None: it
        cannot say. Of several prompts, the largest: each is a sequence of its own."""

    # -- slots, for engines that can save and restore their KV cache ------------------------------

    async def read_slots(self, timeout_s: float) -> list[SlotState] | None:
        """The engine's slots; None: it does not say."""
        return None

    async def save_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        """Raises SlotRefused, SlotUnanswered."""
        raise SlotRefused("this type of engine cannot save slots")

    async def restore_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        """Raises SlotRefused, SlotUnanswered."""
        raise SlotRefused("this type of engine cannot restore slots")

    async def erase_slot(self, slot: int, timeout_s: float) -> None:
        """Forget a slot's conversation; never raises."""
        return  # nothing to forget

    async def tokenize_request(
        self, endpoint: str, body: bytes, timeout_s: float
    ) -> list[int] | None:
        """The ids of a request's prompt, as the engine reads it; None: it cannot say."""
        return None

    def transform_request(
        self, endpoint: str, body: bytes, members: Members | None = None
    ) -> bytes:
        """The body as the engine wants it. The client's own bytes, unless a type needs more.
        `members`: those of the body, if it is JSON and has been decoded."""
        return body

    def transform_response(self, headers: Sequence[Header]) -> list[Header]:
        """The engine's headers as the client gets them."""
        return for_client(headers)

    def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AbstractAsyncContextManager[Exchange]:
        """Send a request; the block has the answer's status, headers and byte stream.

        Leaving the block before the answer was read to its end, by cancellation too, closes the
        connection at once.

        Raises:
            EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted, and what a
            BodySource raises. After one of the first three, `can_repeat` says whether that body
            can be sent once more (`rewind` it).
        """
        return _Forwarding(self, method, target, headers, body)

    @asynccontextmanager
    async def open_socket(
        self,
        target: str,
        subprotocols: Sequence[str],
        headers: Sequence[Header],
        max_message_bytes: int,
    ) -> AsyncIterator[EngineSocket]:
        """A WebSocket, open. Leaving the block closes its connection.

        Raises:
            HandshakeRefused, EngineUnreachable, EngineDisconnected, EngineTalksGarbage,
            ExchangeAborted
        """
        own = self.with_own_headers(headers)
        async with self.connections.open_socket(
            self._opener, self.prefix + target, subprotocols, own, max_message_bytes
        ) as socket:
            self._note_answer()
            yield socket

    def with_own_headers(self, headers: Sequence[Header]) -> Sequence[Header]:
        """With the engine's key in place of any other, and without what must not leave here."""
        if not self._is_here:
            headers = for_elsewhere(headers)
        if not self._own_headers:
            return headers
        others = [h for h in headers if h[0].lower() not in (b"authorization", b"x-api-key")]
        return [*others, *self._own_headers]

    def forget_key(self) -> None:
        """Send none from now on."""
        self._own_headers, self.key_refused = [], None
        self._control = ControlClient(self._opener, self._questions)

    async def ask(
        self, method: str, target: str, timeout_s: float, body: bytes = b""
    ) -> Answer | None:
        """The engine's answer to a question of the gateway itself; None without one. It does not
        affect `refuses`: an engine may answer such questions and still take no work."""
        answer = await self._control.ask(method, self.prefix + target, timeout_s, body)
        self._note_key_refused(answer)
        return answer

    def _note_key_refused(self, answer: Answer | None) -> None:
        if answer is not None and answer.status in KEY_REFUSED:
            self.key_refused = answer.status

    def _note_answer(self) -> None:
        self._refused_last = None
        self._refusals = 0

    def _note_refusal(self, error: Exception, body: bytes | BodySource) -> None:
        # What the gateway ended or could not even begin was not refused, and an engine that is
        # in the middle of answering another request does not refuse everything.
        request: object = body
        if isinstance(body, BodySource):
            request = body.request
            if body.is_begun and not body.is_complete:
                return  # an upload that it closed the door on may be larger than it takes
        again = request is self._refused_last
        answering = self.connections.is_answering
        if not (self.connections.is_over or isinstance(error, OutOfSockets) or answering or again):
            self._refused_last = request
            self._refusals += 1
            self.last_refusal = str(error)
            if self._refusals >= self.refusals_max:
                self.refuses.set()

    def site_rows(self, now: float, wall_s: float) -> tuple[SiteRow, ...]:
        """Of an engine at several URLs, what is known of each. `wall_s`: `now` as Unix time."""
        return ()

    def abort_requests(self, error: ExchangeAborted) -> None:
        """End every request that is under way, and any that comes later; each gets this error. The
        engine still answers questions: its slots may be saved before it is stopped."""
        self.connections.abort_all(error)

    def abort_all(self, error: EngineDisconnected) -> None:
        """As `abort_requests`, and the gateway's questions as well: nothing more is to come."""
        self.connections.abort_all(error)
        self._questions.abort_all(error)

    async def aclose(self) -> None:
        """Close everything, even what is being waited for."""
        if not self._questions.is_over:
            self.abort_all(EngineDisconnected("the engine went away"))


class _Forwarding:
    """A request and its answer, as a block. A class of its own: contextlib's generators, of which
    there were three, took 8 µs of CPU more."""

    def __init__(
        self,
        client: EngineClient,
        method: str,
        target: str,
        headers: Sequence[Header],
        body: bytes | BodySource,
    ) -> None:
        self._client, self._request = client, (method, target, headers, body)

    async def __aenter__(self) -> Exchange:
        client = self._client
        method, target, headers, body = self._request
        headers = client.with_own_headers(headers)
        try:
            self._exchange = await client.connections.begin(
                client._opener, method, client.prefix + target, headers, body
            )
        except EngineLost as error:
            client._note_refusal(error, body)
            raise
        if client._refusals:
            client._note_answer()
        return self._exchange

    async def __aexit__(self, *_: object) -> None:
        self._client.connections.finish(self._exchange)


async def ask_health(
    control: ControlClient, targets: list[str], timeout_s: float, prefix: str = ""
) -> tuple[Answer, str]:
    """The answer to a health question, and the target that gave it. Targets that the engine does
    not have are taken out of the list, unless none would be left.

    Raises:
        EngineLost
    """
    answer = await control.request("GET", prefix + targets[0], timeout_s)
    while answer.status in NOT_THERE and len(targets) > 1:
        del targets[0]
        answer = await control.request("GET", prefix + targets[0], timeout_s)
    return answer, prefix + targets[0]


def _key_headers(options: EngineOptions) -> list[Header]:
    if options.api_key is None:
        return []
    key = options.api_key.reveal().encode()
    return [(b"Authorization", b"Bearer " + key), (b"X-Api-Key", key)]  # Anthropic's: the second
