"""Headers on their way to an engine and back: which are not passed on. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from ipaddress import ip_address

from trio_gateway.engine.http.exchange import Header

# Hop-by-hop headers, those about the engine's server rather than the answer, and those by which it
# would steer a proxy or a browser in the gateway's name. An engine's CORS headers would let any web
# page read what the gateway answers, and others speak for all of the gateway's origin. Of a server
# that is somebody else's only what clients need is passed on, see remote.py.
_NOT_PASSED_ON = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"server",
        b"date",
        b"set-cookie",
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"access-control-allow-private-network",
        b"clear-site-data",
        b"service-worker-allowed",
        b"alt-svc",
        b"strict-transport-security",
        b"public-key-pins",
        b"expect-ct",
        b"refresh",
        b"link",
        b"content-location",
        b"nel",
        b"report-to",
        b"reporting-endpoints",
        b"origin-agent-cluster",
        b"x-sendfile",
        b"x-lighttpd-send-file",
        b"x-reproxy-url",
        b"surrogate-control",
        b"traceparent",  # the client gets the one that it sent, or the gateway's own
        b"tracestate",
        b"baggage",
    }
)
# `x-gateway-` of another gateway would contradict ours; `x-accel-` makes nginx serve a file.
_NOT_PASSED_ON_PREFIXES = (b"x-gateway-", b"x-accel-", b"proxy-")

# Which conversation a request belongs to, for who chooses among several engines: 16 hex digits.
AFFINITY = b"x-gateway-affinity"

# What a client's own programs note along the way of a trace: names of users, say. It is meant for
# those who belong together, and a server elsewhere may be a stranger's.
_NOT_FOR_ELSEWHERE = b"baggage"


def for_client(headers: Sequence[Header]) -> list[Header]:
    """An engine's headers as the client gets them."""
    return [header for header in headers if _is_for_client(header[0])]


@functools.lru_cache(maxsize=64)  # an engine's answers all have the same few
def _is_for_client(name: bytes) -> bool:
    return name not in _NOT_PASSED_ON and not name.startswith(_NOT_PASSED_ON_PREFIXES)


def for_elsewhere(headers: Sequence[Header]) -> list[Header]:
    """A client's headers as an engine gets them that is not on this machine."""
    return [header for header in headers if header[0] != _NOT_FOR_ELSEWHERE]


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
