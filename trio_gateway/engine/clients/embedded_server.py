"""`trio-gateway-llama-server`: a llama-server on xllamacpp, which carries llama.cpp in a wheel.

It takes the flags of llama-server that a configuration needs, and refuses all others by name.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

END_LIMIT_S = 3.0  # an idle engine stops in 0.05 s, one with a request under way in 0.3 s
POOLING = {"none": "NONE", "mean": "MEAN", "cls": "CLS", "last": "LAST", "rank": "RANK"}


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # as llama-server does
    }
)
@click.option("-m", "--model", required=True, type=click.Path(path_type=Path), help="GGUF file.")
@click.option("-c", "--ctx-size", type=click.IntRange(0), default=0, help="0: as trained.")
@click.option("-np", "--parallel", type=click.IntRange(1), help="Slots; default: the engine's.")
@click.option("-kvu", "--kv-unified", is_flag=True, help="All slots share one KV cache.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("-t", "--threads", type=click.IntRange(1))
@click.option("-ngl", "--n-gpu-layers", "--gpu-layers", type=int)
@click.option("-b", "--batch-size", type=click.IntRange(1))
@click.option("-ub", "--ubatch-size", type=click.IntRange(1))
@click.option("--slot-save-path", type=click.Path(path_type=Path), help="Folder for saved slots.")
@click.option("--embeddings", "--embedding", is_flag=True, help="Serve embeddings only.")
@click.option("--pooling", type=click.Choice([*POOLING]))
@click.option("-a", "--alias", help="The model's name in answers.")
@click.option(
    "-ctxcp",
    "--ctx-checkpoints",
    "--swa-checkpoints",
    type=click.IntRange(0),
    envvar="LLAMA_ARG_CTX_CHECKPOINTS",
    help="Most context checkpoints of a slot; default: 32.",
)
@click.option(
    "-cram",
    "--cache-ram",
    type=click.IntRange(-1),
    envvar="LLAMA_ARG_CACHE_RAM",
    help="MiB for prompts that left their slots; 0: none.",
)
@click.option(
    "--swa-full",
    is_flag=True,
    envvar="LLAMA_ARG_SWA_FULL",
    help="Keep all of a sliding window's cache. There is no KV carry-over with it.",
)
@click.option("--api-key", envvar="LLAMA_API_KEY", help="What clients have to send.")
@click.option("--api-key-file", type=click.File(encoding="utf-8"), help="Keys, one a line.")
def main(**options: Any) -> None:
    """Serve one model over HTTP, as llama.cpp's llama-server does."""
    try:
        import xllamacpp
    except ModuleNotFoundError:
        raise click.ClickException(
            "the embedded engine needs xllamacpp: pip install xllamacpp"
        ) from None
    except ImportError as error:  # of a library that the system lacks
        raise click.ClickException(f"xllamacpp cannot be loaded: {error}") from None
    # While the model loads, nothing needs an orderly end: both signals stop the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)  # what it writes is a slot's conversation
    params = xllamacpp.CommonParams()
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
    setters: dict[str, Callable[[Any], None]] = {
        "n_gpu_layers": lambda v: setattr(params, "n_gpu_layers", v),
        "parallel": lambda v: setattr(params, "n_parallel", v),
        "threads": lambda v: setattr(params.cpuparams, "n_threads", v),
        "batch_size": lambda v: setattr(params, "n_batch", v),
        "ubatch_size": lambda v: setattr(params, "n_ubatch", v),
        "alias": lambda v: setattr(params, "model_alias", {v}),
        "ctx_checkpoints": lambda v: setattr(params, "n_ctx_checkpoints", v),
        "cache_ram": lambda v: setattr(params, "cache_ram_mib", v),
        "api_key": lambda v: setattr(params, "api_keys", [*params.api_keys, *_words(v.split(","))]),
        "api_key_file": lambda v: setattr(params, "api_keys", [*params.api_keys, *_words(v)]),
        "slot_save_path": lambda v: setattr(params, "slot_save_path", f"{v}/"),
        "pooling": lambda v: setattr(
            params,
            "pooling_type",
            getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{POOLING[v]}"),
        ),
    }
    params.model.path = str(options["model"])
    params.n_ctx = options["ctx_size"]
    if hasattr(params, "hostnames"):
        params.hostnames = [options["host"]]
    else:  # before October 2026
        params.hostname = options["host"]
    params.port = options["port"]
    params.embedding = options["embeddings"]
    params.kv_unified = options["kv_unified"]
    params.swa_full = options["swa_full"]
    params.endpoint_slots = params.endpoint_props = True
    for name, apply in setters.items():
        if options[name] is not None:
            apply(options[name])


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts if (word := text.strip())]


if __name__ == "__main__":
    main()
