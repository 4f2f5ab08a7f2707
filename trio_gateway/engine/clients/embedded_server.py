"""`trio-gateway-llama-server`: a llama-server on xllamacpp, which carries llama.cpp in a wheel.

It takes the flags of llama-server that a configuration needs, and refuses all others by name.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from trio_gateway.config import server_options as known
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.server_options import ServerOption
from trio_gateway.engine.process.missing_library import missing_library

COMMANDLINE = click.core.ParameterSource.COMMANDLINE
CHAT_TEMPLATE = f"{__name__}.chat_template"  # in click's context
END_LIMIT_S = 3.0  # an idle engine stops in 0.05 s, one with a request under way in 0.3 s
POOLING = {"none": "NONE", "mean": "MEAN", "cls": "CLS", "last": "LAST", "rank": "RANK"}


def _option(known: ServerOption, kind: Any = None, **more: Any) -> Callable[[Any], Any]:
    """An option in all its spellings; without it, what its variable says."""

    def by_variable() -> str | None:
        return EngineArgs((), os.environ).value(known)

    more.setdefault("default", by_variable)
    return click.option(*known.spellings, _name(known), type=kind, **more)


def _switch(known: ServerOption, **more: Any) -> Callable[[Any], Any]:
    """One that is on or off. Where it can be switched off, None is neither."""

    def by_variable() -> bool | None:
        found = EngineArgs((), os.environ).switch(known)
        return found if known.negations else found is True

    spellings: Sequence[str] = known.spellings
    if known.negations:
        spellings = ["/".join(pair) for pair in zip(spellings, known.negations, strict=True)]
    return click.option(*spellings, _name(known), default=by_variable, is_flag=True, **more)


def _name(known: ServerOption) -> str:
    return known.name.removeprefix("--").replace("-", "_")


def _note_template(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The last argument wins, and any over a variable; of the variables that of a file, which comes
    first here. click asks for the arguments in their order, and then for the rest."""
    by_argument = context.get_parameter_source(parameter.name or "") is COMMANDLINE
    if value is not None and (by_argument or CHAT_TEMPLATE not in context.meta):
        context.meta[CHAT_TEMPLATE] = value if isinstance(value, str) else value.read()


_TEMPLATE: dict[str, Any] = {"callback": _note_template, "expose_value": False}


def _xllamacpp() -> Any:
    """Raises click.ClickException: it is not there, or a library that it needs is not."""
    try:
        import xllamacpp
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "xllamacpp":
            what = "the embedded engine needs xllamacpp: pip install xllamacpp"
        else:
            what = f"xllamacpp cannot be loaded: {error}"
            if (lack := missing_library(str(error))) is not None:
                what = f"{what}; {lack}"
        raise click.ClickException(what) from None
    return xllamacpp


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"xllamacpp {_xllamacpp().__version__}")
        context.exit()


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # as llama-server does
    }
)
@_option(known.MODEL, click.Path(path_type=Path), required=True, help="GGUF file.")
@_option(known.CONTEXT, click.IntRange(0), help="Default: as trained.")
@_option(known.PARALLEL, click.IntRange(1), help="Slots; default: the engine's.")
@_switch(known.UNIFIED_KV, help="All slots share one KV cache.")
@_option(known.HOST, help="Default: 127.0.0.1.")
@_option(known.PORT, click.IntRange(0, 65535), help="Default: 8080.")
@_option(known.API_PREFIX, help="Path in front of all of its paths.")
@_option(known.THREADS, click.IntRange(1))
@_option(known.GPU_LAYERS, int)
@_option(known.BATCH, click.IntRange(1))
@_option(known.PHYSICAL_BATCH, click.IntRange(1))
@_option(known.SLOT_SAVE_PATH, click.Path(path_type=Path), help="Folder for saved slots.")
@_switch(known.EMBEDDING, help="Serve embeddings only.")
@_switch(known.RERANKING, help="Serve ranks of documents only.")
@_option(known.POOLING, click.Choice([*POOLING]))
@_option(known.ALIAS, help="The model's name in answers.")
@_option(known.PROJECTOR, click.Path(path_type=Path), help="GGUF file, for images.")
@_option(
    known.CHAT_TEMPLATE_FILE,
    click.File(encoding="utf-8"),
    help="In place of the model's own.",
    **_TEMPLATE,
)
@_option(known.CHAT_TEMPLATE, help="The same, as text or by name.", **_TEMPLATE)
@_switch(known.JINJA, help="Whether templates are programs; default: they are.")
@_option(known.SLEEP_IDLE, click.IntRange(-1), help="Free its memory after so long without work.")
@_option(known.CHECKPOINTS, click.IntRange(0), help="Most of a slot; default: 32.")
@_option(
    known.CACHE_RAM, click.IntRange(-1), help="MiB for prompts that left their slots; 0: none."
)
@_switch(
    known.SWA_FULL,
    help="Keep all of a sliding window's cache. There is no KV carry-over with it.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version)
@_option(known.API_KEY, help="What clients have to send.")
@_option(known.API_KEY_FILE, click.File(encoding="utf-8"), help="Keys, one a line.")
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Serve one model over HTTP, as llama.cpp's llama-server does."""
    xllamacpp = _xllamacpp()
    # While the model loads, nothing needs an orderly end: both signals stop the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)  # what it writes is a slot's conversation
    params = xllamacpp.CommonParams()
    params.chat_template = context.meta.get(CHAT_TEMPLATE, "")
    _apply(params, xllamacpp, options)
    try:
        server = xllamacpp.Server(params)  # returns once the model is loaded
    except RuntimeError as error:
        raise click.ClickException(f"the model could not be served: {error}") from None
    sys.stderr.write(f"serving {params.model.path} at {server.listening_address}\n")
    sys.stderr.flush()
    _wait_for_end_signal()
    _end_within(END_LIMIT_S)
    del server  # its destructor stops requests and frees the model


def _wait_for_end_signal() -> None:
    """Block until SIGTERM or SIGINT. The engine's own threads may be the ones that receive it, so
    waiting for it in this thread (sigwait, pause) would miss it; the wakeup socket does not."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    ours.recv(1)


def _end_within(limit_s: float) -> None:
    """xllamacpp's destructor may wait for ever if it runs right after the start. It holds the
    interpreter in the meantime, so only the system's own alarm gets past it."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_s)


def _apply(params: Any, xllamacpp: Any, options: dict[str, Any]) -> None:
    def pooling(name: str) -> None:
        kinds = xllamacpp.llama_pooling_type
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{POOLING[name]}")

    def host(name: str) -> None:
        if hasattr(params, "hostnames"):
            params.hostnames = _words(name.split(","))
        else:  # before October 2026
            params.hostname = name

    def more_keys(keys: Iterable[str]) -> None:
        params.api_keys = [*params.api_keys, *_words(keys)]

    def set_to(name: str, of: Any = params) -> Callable[[Any], None]:
        return lambda value: setattr(of, name, value)

    setters: dict[ServerOption, Callable[[Any], None]] = {
        known.MODEL: lambda v: setattr(params.model, "path", str(v)),
        known.CONTEXT: set_to("n_ctx"),
        known.PARALLEL: set_to("n_parallel"),
        known.UNIFIED_KV: set_to("kv_unified"),
        known.HOST: host,
        known.PORT: set_to("port"),
        known.API_PREFIX: set_to("api_prefix"),
        known.THREADS: lambda v: setattr(params.cpuparams, "n_threads", v),
        known.GPU_LAYERS: set_to("n_gpu_layers"),
        known.BATCH: set_to("n_batch"),
        known.PHYSICAL_BATCH: set_to("n_ubatch"),
        known.SLOT_SAVE_PATH: lambda v: setattr(params, "slot_save_path", f"{v}/"),
        known.POOLING: pooling,
        known.ALIAS: lambda v: setattr(params, "model_alias", {v}),
        known.PROJECTOR: lambda v: setattr(params.mmproj, "path", str(v)),
        known.JINJA: set_to("use_jinja"),
        known.SLEEP_IDLE: set_to("sleep_idle_seconds"),
        known.CHECKPOINTS: set_to("n_ctx_checkpoints"),
        known.CACHE_RAM: set_to("cache_ram_mib"),
        known.SWA_FULL: set_to("swa_full"),
        known.API_KEY: lambda v: more_keys(v.split(",")),
        known.API_KEY_FILE: more_keys,
    }
    params.n_ctx, params.port = 0, 8080  # 0: as trained
    params.endpoint_slots = params.endpoint_props = True
    params.embedding = options[_name(known.EMBEDDING)] or options[_name(known.RERANKING)]
    if options[_name(known.RERANKING)]:
        pooling("rank")
    for option, apply in setters.items():
        if (value := options[_name(option)]) is not None:
            apply(value)


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts if (word := text.strip())]


if __name__ == "__main__":
    main()
