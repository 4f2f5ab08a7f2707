"""Writes `docs/api.md` from the endpoints: `python -m trio_gateway.server.openapi.markdown`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.server.api.endpoint import Endpoint, Family, ModelIn, Need
from trio_gateway.server.api.endpoints import ENDPOINTS

ROOT = Path(__file__).parents[3]
DOCUMENT = Path("docs/api.md")
COMMAND = "python -m trio_gateway.server.openapi.markdown"

_HEAD = f"""# The API

<!-- Written by `{COMMAND}` from trio_gateway/server/api/endpoints.py: change that instead. -->

Every endpoint. The same as an OpenAPI document: `curl localhost:7777/openapi.json`.

- Every path with GET takes HEAD, and OPTIONS lists the methods of a path. Any other method gets 405
  with `Allow`, and an unknown path gets 404 with the nearest one.
- Errors have the shape of the OpenAI API; under `/v1/messages`, and for requests with
  `anthropic-version`, that of Anthropic; under `/api/` that of Ollama.
- A model's name is that of the configuration, or an alias. `name:variant` asks for one variant, and
  `name@8192` for a context of at least 8192 tokens.
- Fields that the gateway does not know go to the engine as they are. A known field of the wrong
  type gets 400 with its name in `param`. `4.0` and `1e2` are integers, and a seed may have 64 bits;
  both are passed on as they came.
- *Counted* says which part of a request is counted to find the smallest variant that fits. For what
  is not counted, any engine of the model will do.
- † The model's name may be left out if there is only one model.
- ‡ Which engine is asked: that of the model in `?model=`. Without it the only model's, or that of
  the only model of which an engine runs. A model without an engine gets one for it.
- § Without `/v1`, a body in llama.cpp's own form gets llama.cpp's own answer: if it has no `model`;
  if it has `n_predict`, `n_probs`, `post_sampling_probs`, `return_tokens` or `response_fields`
  (completions), `content` or `embd_normalize` (embeddings); or if its prompt or input is an object,
  or an array with one in it. So does `/embeddings` of a model with `--pooling none`, or
  without any pooling. All other requests there are OpenAI's, and so are all for engines that are
  not llama.cpp's.
- An endpoint that a model's engines do not serve gets 400 with a list of those that they serve.
"""

_ABOUT: Mapping[Family, str] = {
    Family.OPENAI: """Clients take `http://localhost:7777/v1` as their base URL.

```sh
curl localhost:7777/v1/chat/completions -d '{
  "model": "smollm2-135m", "messages": [{"role": "user", "content": "Hello!"}], "stream": true}'
```""",
    Family.LLAMACPP: """What llama.cpp's own clients use.

```sh
curl localhost:7777/tokenize -d '{"model": "smollm2-135m", "content": "Hello!"}'
```""",
    Family.ANTHROPIC: """Clients take `http://localhost:7777` as their base URL.

```sh
curl localhost:7777/v1/messages -d '{
  "model": "smollm2-135m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}'
```""",
    Family.OLLAMA: "Clients take `http://localhost:7777` as their host.",
    Family.GATEWAY: """What the gateway says about itself, and what it can be told to do.

```sh
curl -X POST localhost:7777/gateway/models/smollm2-135m/load
curl localhost:7777/gateway/engines
curl localhost:7777/upstream/smollm2-135m/props
```""",
}

_MODEL_IN = {
    ModelIn.NOWHERE: "",
    ModelIn.BODY_OR_NONE: f"{ModelIn.BODY.value} †",
    ModelIn.QUERY: "`?model=` †",
    ModelIn.QUERY_OR_RUNNING: "`?model=` ‡",
}
_NEED = {Need.NO_ENGINE: "", Need.UNCOUNTED: "no"}


def engine_types() -> dict[str, frozenset[str]]:
    """What each type of engine serves, by its name; of types of one kind, the first."""
    names = {type(kind_of(known)): known.value for known in reversed(ENGINE_TYPES.values())}
    return {name: kind.endpoints for kind, name in reversed(names.items())}


def written(endpoints: Iterable[Endpoint] = ENDPOINTS) -> str:
    """The whole document."""
    rows = [*endpoints]
    types = engine_types()
    by_family = {family: [row for row in rows if row.family is family] for family in Family}
    sections = (
        f"\n## {family.value}\n\n{_ABOUT[family]}\n\n{_table(of_family, types)}"
        for family, of_family in by_family.items()
        if of_family
    )
    return "".join((_HEAD, *sections))


def _table(rows: Iterable[Endpoint], types: Mapping[str, frozenset[str]]) -> str:
    head = ("Endpoint", "", "Body", "Model", "Counted", "Served by")
    lines = [head, ("---",) * len(head), *(_row(row, types) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(endpoint: Endpoint, types: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    methods = ", ".join(endpoint.methods)
    first, *others = endpoint.paths
    also = f" Also {', '.join(f'`{path}`' for path in others)}." if others else ""
    return (
        f"`{methods} {first}`",
        f"{endpoint.summary}{also}{' Streams.' if endpoint.streams else ''}",
        endpoint.body.value,
        _MODEL_IN.get(endpoint.model_in, endpoint.model_in.value),
        _NEED.get(endpoint.need, endpoint.need.value),
        ", ".join(_served_by(endpoint, types)),
    )


def _served_by(endpoint: Endpoint, types: Mapping[str, frozenset[str]]) -> Iterator[str]:
    if endpoint.family in (Family.GATEWAY, Family.OLLAMA) or not endpoint.needs_engine:
        yield "the gateway" if not endpoint.needs_engine else "any"
        return
    found = [name for name, served in types.items() if endpoint.name in served]
    yield from found or ["none of the types"]


def main() -> None:
    if not (ROOT / DOCUMENT.parent).is_dir():
        sys.exit(f"{ROOT} is not a checkout: it has no {DOCUMENT.parent}/")
    (ROOT / DOCUMENT).write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
