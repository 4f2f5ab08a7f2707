"""Replica: what Ray Serve runs, one engine with it, and passes requests to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trio_gateway.cluster.engine_process import EngineGone, EngineProcess

log = logging.getLogger("ray.serve")

POLL_S = 0.1
HEALTH_S = 5.0
STOP_S = 10.0
# A message's own affair, or made anew by whoever passes it on.
_NOT_PASSED_ON = frozenset(
    {
        b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host",
        b"content-length", b"proxy-connection",
    }
)  # fmt: skip


class Replica:
    """One of an application. Ready once its engine is.

    Args:
        command: the engine's, with `${PORT}`.
        env: the engine's variables, on top of the worker's.
        health: the path that says whether the engine is ready; one that it does not have, as the
            status 404 tells, counts as ready.

    Raises:
        EngineGone: it ended before it was ready.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        health: str = "/health",
    ) -> None:
        self._health, self._heard_at = health, 0.0
        self._engine = EngineProcess(command, env or {}, lambda line: log.info("engine | %s", line))
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._engine.port}",
            timeout=httpx.Timeout(None, connect=HEALTH_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            trust_env=False,
        )
        try:
            await self._until_ready()
        except BaseException:
            await asyncio.to_thread(self._engine.stop, STOP_S)
            raise

    async def _until_ready(self) -> None:
        while True:
            if await self._is_ready():
                return
            await asyncio.sleep(POLL_S)

    async def _is_ready(self) -> bool:
        self._engine.check()
        try:
            answer = await self._client.get(self._health, timeout=HEALTH_S)
        except httpx.HTTPError:
            return False
        return answer.status_code in (200, 404)

    async def check_health(self) -> None:
        """Ray Serve asks this. An engine that works on answers may have no thread left for its own
        health endpoint: whatever came from it lately is a sign of life.

        Raises:
            EngineGone, httpx.HTTPError
        """
        self._engine.check()
        if time.monotonic() < self._heard_at + HEALTH_S:
            return
        await self._client.get(self._health, timeout=HEALTH_S)

    async def __call__(self, request: Request) -> Response:
        """The engine's answer, byte for byte as it comes. If whoever asked goes away, the engine's
        connection is closed, and it stops generating."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        query = request.scope.get("query_string", b"")
        asked = self._client.build_request(
            request.method,
            httpx.URL(path=path or "/", query=query or None),
            headers=_passed_on(request.headers.raw),
            content=await request.body(),
        )
        try:
            answer = await self._client.send(asked, stream=True)
        except httpx.ConnectError as error:
            self._engine.check()
            raise EngineGone(f"the engine takes no connection: {error}") from error
        passed = _Passed(self._read(answer), answer.status_code)
        passed.answer = answer
        length = [(n, v) for n, v in answer.headers.raw if n.lower() == b"content-length"]
        passed.raw_headers = [*_passed_on(answer.headers.raw), *length]
        return passed

    async def _read(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        async for chunk in answer.aiter_raw():
            self._heard_at = time.monotonic()
            yield chunk

    def __del__(self) -> None:
        """Ray Serve calls this when the replica is to end."""
        engine: EngineProcess | None = self.__dict__.pop("_engine", None)
        if engine is not None:
            engine.stop(STOP_S)


class _Passed(StreamingResponse):  # type: ignore[misc]
    """It ends with the engine's connection closed, or free for the next request."""

    answer: httpx.Response

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.answer.aclose()


def _passed_on(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in _NOT_PASSED_ON]


def build(args: Mapping[str, Any]) -> Any:
    """The application, for Ray Serve's `import_path`. `args`: those of `Replica`."""
    from ray import serve

    chosen = {name: args[name] for name in ("command", "env", "health") if name in args}
    return serve.deployment(Replica, name="engine").bind(**chosen)
