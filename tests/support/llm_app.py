"""An application for Ray Serve with OpenAI's API, as that of Ray Serve LLM is one: somebody
else's, with nothing of the gateway in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

MODEL = "somebodys-model"
TOKEN_S = 0.02


class Api:
    """`left`: the file that it writes once a client leaves in the middle of a stream."""

    def __init__(self, left: str) -> None:
        self._left = Path(left)

    async def __call__(self, request: Request) -> Response:
        if request.scope["path"].endswith("/models"):
            return JSONResponse({"data": [{"id": MODEL}]})
        asked = await request.json()
        if asked.get("stream"):
            tokens = self._tokens(asked["max_tokens"])
            return StreamingResponse(tokens, media_type="text/event-stream")
        return JSONResponse({"choices": [{"message": {"content": f"from {asked['model']}"}}]})

    async def _tokens(self, count: int) -> AsyncIterator[str]:
        event = json.dumps({"choices": [{"delta": {"content": "tok "}}]})
        try:
            for text in [*[event] * count, "[DONE]"]:
                yield f"data: {text}\n\n"
                await asyncio.sleep(TOKEN_S)
        except (asyncio.CancelledError, GeneratorExit):
            self._left.touch()
            raise


def build(args: Mapping[str, Any]) -> Any:
    """For Ray Serve's `import_path`."""
    from ray import serve

    nothing = {"num_cpus": 0}
    return serve.deployment(Api, name="api", ray_actor_options=nothing).bind(args["left"])
