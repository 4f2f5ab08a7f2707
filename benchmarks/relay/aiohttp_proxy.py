"""The shortest reverse proxy on aiohttp: what a user's own twenty lines would cost.

python -m benchmarks.relay.aiohttp_proxy --fd NUMBER --engine PORT
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import AsyncIterator

from aiohttp import ClientSession, TCPConnector, web

READ_MAX = 1 << 20
BODY_MAX = 1 << 28


def make_app(engine: str) -> web.Application:
    session = web.AppKey("session", ClientSession)

    async def hold_session(app: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0)
        async with ClientSession(connector=connector, read_bufsize=READ_MAX) as app[session]:
            yield

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        url = engine + request.path_qs
        async with request.app[session].request(
            request.method, url, data=body, headers=headers
        ) as got:
            if got.content_length is not None:
                whole = await got.read()
                return web.Response(status=got.status, body=whole, content_type=got.content_type)
            kind = {"Content-Type": got.headers.get("Content-Type", "")}
            answer = web.StreamResponse(status=got.status, headers=kind)
            await answer.prepare(request)
            async for piece in got.content.iter_any():
                await answer.write(piece)
            await answer.write_eof()
            return answer

    app = web.Application(client_max_size=BODY_MAX)
    app.cleanup_ctx.append(hold_session)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--fd", type=int, required=True, help="a listening socket")
    options.add_argument("--engine", type=int, required=True, help="its port")
    given = options.parse_args()
    listener = socket.socket(fileno=given.fd)
    app = make_app(f"http://127.0.0.1:{given.engine}")
    web.run_app(app, sock=listener, print=None, access_log=None)


if __name__ == "__main__":
    main()
