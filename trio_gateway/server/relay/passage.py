"""What goes to an engine with a request, and what more if somebody else runs it. Pure."""

from __future__ import annotations

from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.headers import AFFINITY
from trio_gateway.engine.clients.hops import VIA
from trio_gateway.engine.http.exchange import Header
from trio_gateway.models.affinity import affinity_key
from trio_gateway.server.access.caller import PRIORITY_HEADER
from trio_gateway.server.access.forwarded import CLIENT_HEADER, REQUEST_ID_HEADER, as_header
from trio_gateway.server.relay.ask import Ask, Sender

_PRIORITY = PRIORITY_HEADER.lower().encode()


def headers_to(engine: EngineClient, sender: Sender) -> list[Header]:
    """Of a request of this sender, as they are given to the engine's client. Who asks is for
    another gateway alone, and only if the configuration says that it is one."""
    if not engine.is_remote:
        return sender.headers
    headers = [*sender.headers]
    if hops := sender.state.hops:
        headers.append((VIA, hops))
    if engine.options.gateway:
        caller = sender.caller
        headers += [
            (CLIENT_HEADER, as_header(caller.client)),
            (_PRIORITY, caller.priority.word.encode()),
            (REQUEST_ID_HEADER, sender.state.id.encode()),
        ]
    return headers


def headers_of(ask: Ask, engine: EngineClient) -> list[Header]:
    """The same of a request that may belong to a conversation."""
    headers = headers_to(engine, ask.sender)
    if not engine.routes_by_affinity or ask.counted is None:
        return headers
    record, owner = ask.state.record, ask.sender.permissions.owner
    thread = None if record.thread is None else record.thread.beginning
    key = affinity_key(owner, ask.model.name, ask.counted, record.conversation, thread)
    return headers if key is None else [*headers, (AFFINITY, key.encode())]
