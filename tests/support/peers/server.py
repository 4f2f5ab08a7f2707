"""The llama-server that the tests start: `engine` is the embedded one, `gateway` one behind ours.

    python -m tests.support.peers.server SIDE MODEL BINARY OPTIONS…

`BINARY` starts the engine itself, for the gateway. Each becomes what it is, in the same process, so
that a signal of the tests gets there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.peers import options
from trio_gateway.config import server_options as known
from trio_gateway.config.engine_args import EngineArgs

# What the tests call their model where they name one at all.
NAMES = (
    "test", "gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "gpt-4.1", "davinci-002", "dummy",
    "text-embedding-3-small", "codellama70b", "model",
)  # fmt: skip
TRAINED_FOR = 8192
END_LIMIT_S = 1.0  # the tests kill what takes 5 s to end


def main() -> None:
    side, model, binary, *args = sys.argv[1:]
    try:
        args = options.with_model(args, Path(model))
    except options.NotHere as reason:
        sys.exit(str(reason))
    if side == "engine":
        become_engine(args)
    become_gateway(args, binary)


def become_engine(args: Sequence[str]) -> None:
    """The embedded engine, with options that it has no flags for."""
    import xllamacpp

    from trio_gateway.engine.clients import embedded_server

    rest, further = options.split(args)
    real = xllamacpp.Server

    def serve(params: object) -> object:
        for option, value in further:
            option.set(params, value)
        return real(params)

    xllamacpp.Server = serve
    embedded_server.main(rest)


def become_gateway(args: Sequence[str], binary: str) -> None:
    """`trio-gateway serve` with one model."""
    folder = Path(tempfile.mkdtemp(dir=Path(binary).parent))
    file = folder / "gateway.lua"
    file.write_text(configuration(args, binary, folder))
    os.environ["XDG_STATE_HOME"] = str(folder / "state")  # what is measured is for nobody else
    serve = "import sys; from trio_gateway.main import main; sys.argv[0] = 'trio-gateway'; main()"
    os.execv(sys.executable, [sys.executable, "-c", serve, "serve", "-c", str(file)])


def configuration(args: Sequence[str], binary: str, folder: Path) -> str:
    """In Lua; where the tests' server would listen, with its name and its key."""
    given = EngineArgs(args, {})
    names = sorted((given.value(known.ALIAS) or NAMES[0]).split(","))
    slots = int(given.value(known.PARALLEL) or 1)
    context = int(given.value(known.CONTEXT) or TRAINED_FOR)
    if not given.switch(known.UNIFIED_KV):
        context //= slots
    hosts = (given.value(known.HOST) or "127.0.0.1").split(",")
    port = given.value(known.PORT)
    v4 = [f"{host}:{port}" for host in hosts if ":" not in host]
    v6 = [f"[{host}]:{port}" for host in hosts if ":" in host]
    key = given.value(known.API_KEY)
    kept = options.without(args, known.HOST, known.PORT, known.API_KEY)
    saves_itself = given.value(known.SLOT_SAVE_PATH) is not None
    return f"""
server = {{
  listen_v4 = {_array(v4)},
  listen_v6 = {_array(v6) if v6 else '"none"'},
  {f"api_keys = {{{{ key = {_text(key)}, admin = true }}}}," if key else ""}
  shutdown_grace = {END_LIMIT_S},
  kv_carryover = {{ directory = {_text(str(folder / "kv"))} }},
}}
models = {{
  {{
    name = {_text(names[0])},
    aliases = {_array([*names[1:], *(n for n in NAMES if n not in names)])},
    engine = presets.engines.llamacpp,
    kv_carryover = {"false" if saves_itself else "true"},
    variants = {{
      {{ binary = {_text(binary)}, workdir = {_text(os.getcwd())}, context = {context},
        args = {_array(kept)} }},
    }},
  }},
}}
"""


def _array(texts: Sequence[str]) -> str:
    return f"{{ {', '.join(map(_text, texts))} }}"


def _text(text: str) -> str:
    """Lua reads JSON's escapes for ASCII."""
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    main()
