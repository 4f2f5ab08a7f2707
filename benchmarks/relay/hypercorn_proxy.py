"""Proxies under hypercorn as its package is: nothing of the gateway is imported.

    python -m benchmarks.relay.hypercorn_proxy MODE --fd NUMBER --engine PORT

`asgi`: the app that `cycle` calls in its connections. `quart`: a Quart-Trio app that does the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from benchmarks.relay.trio_proxy import Engine, asgi_app, options

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

BACKLOG = 1024


def quart_app(engine: Engine) -> QuartTrio:
    # Here, because the process of `asgi` is measured without it.
    from quart import Response, request
    from quart_trio import QuartTrio

    app = QuartTrio(__name__)

    @app.post("/<path:path>")
    async def relay(path: str) -> Response:
        body = await request.get_data()
        assert isinstance(body, bytes)
        json.loads(body)
        pieces = engine.ask(b"/" + path.encode(), body)
        answer, first = await anext(pieces)
        headers = {"content-type": answer.content_type.decode()}
        if answer.is_complete:
            async for _ in pieces:
                pass  # to its end: otherwise the connection is not kept
            return Response(first, headers=headers)

        async def rest() -> AsyncIterator[bytes]:
            yield first
            async for _, piece in pieces:
                yield piece

        return Response(rest(), headers=headers)

    return app


def main() -> None:
    given = options("asgi", "quart").parse_args()
    engine = Engine(given.engine)
    config = Config()
    config.bind = [f"fd://{given.fd}"]
    config.backlog = BACKLOG
    config.accesslog = config.errorlog = None
    app: Any = asgi_app(engine) if given.mode == "asgi" else quart_app(engine)
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()
