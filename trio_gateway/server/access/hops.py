"""Refuses a request that goes in a circle: gateways that lead to each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from trio_gateway.engine.clients.hops import HOPS_MAX, THIS_RUN, hops_in
from trio_gateway.server.api.errors import ApiError

_CURE = (
    "look at the `urls` of the models that gateways get from each other, and name there only "
    "gateways that run the model themselves"
)


def check_hops(values: Iterable[bytes], here: str = THIS_RUN) -> bytes:
    """What goes on to other gateways of a request that came with these headers. `here`: the id of
    this gateway's run.

    Raises:
        ApiError: 508, it was here before, or has passed HOPS_MAX gateways; 400, that cannot be
            read.
    """
    try:
        hops = hops_in(values)
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_via") from None
    if here in hops:
        passed = len(hops) - hops.index(here)
        others = "" if passed == 1 else f", by way of {passed - 1} more"
        raise _loop(f"the request has come back to this gateway{others}")
    if len(hops) >= HOPS_MAX:
        raise _loop(f"the request has passed {len(hops)} gateways, and may pass {HOPS_MAX}")
    return ", ".join(hops).encode()


def _loop(what: str) -> ApiError:
    return ApiError(508, f"{what}: {_CURE}", "api_error", code="gateway_loop")
