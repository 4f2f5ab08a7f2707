"""`trio-gateway serve`: the gateway in the foreground, and what it says when it is ready."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import msgspec

from trio_gateway import __version__
from trio_gateway.commands.key import KEY_VARIABLE
from trio_gateway.commands.loading import EXIT_FAILED, config_option, load_or_exit
from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.missing import missing
from trio_gateway.config.schema import GatewayConfig, ListenAddress, ModelConfig
from trio_gateway.engine.loadable import cannot_load
from trio_gateway.log import FORMAT_VARIABLE, LogFormat, configure_logging
from trio_gateway.stop_signals import StopSignals, forget_dead_output

log = logging.getLogger(__name__)


@click.command()
@config_option
@click.option("-v", "--verbose", is_flag=True, help="Log each request, and what the engines print.")
@click.option(
    "--log-format",
    type=click.Choice([known.value for known in LogFormat]),
    default=LogFormat.TEXT.value,
    envvar=FORMAT_VARIABLE,
    show_default=True,
    help="How the log is written: lines for people, or an object a line for programs. "
    f"${FORMAT_VARIABLE} says the same.",
)
@click.option("--watch", is_flag=True, help="Reload whenever the configuration has changed.")
@click.pass_obj
def serve(
    signals: StopSignals, path: Path | None, *, verbose: bool, log_format: str, watch: bool
) -> None:
    """Serve the models until Ctrl-C (or SIGTERM). SIGHUP reloads the configuration."""
    began_ns = time.time_ns()
    config, why = load_or_exit(path)
    configure_logging(verbose=verbose, log_format=LogFormat(log_format))
    say = _say if log_format == LogFormat.TEXT.value else _log_line
    say(f"trio-gateway {__version__}, configuration {config.source} ({why})")
    for note in config.notes:
        log.info("%s: %s", config.source, note)
    lacks = missing(config)
    for lack in lacks:
        log.warning("%s: %s", config.source, lack.text)

    # Imported here: `check` and `--help` need no web framework, which takes 0.3 s to load.
    import trio

    from trio_gateway.app import create_app
    from trio_gateway.server.gateway_server import GatewayServer
    from trio_gateway.server.http.listeners import ListenError
    from trio_gateway.server.http.whereabouts import Whereabouts
    from trio_gateway.service.installation import longest_stop_s
    from trio_gateway.service.notifier import Notifier
    from trio_gateway.tasks import beside, open_flat_nursery

    # What is loaded by now stays; without it, each full collection is shorter. Measured against
    # the same without: 5 % of the CPU of a small request.
    gc.collect()
    gc.freeze()

    async def run() -> None:
        signals.attach()
        gateway = create_app(config)
        server = GatewayServer(gateway, Whereabouts(config.source))
        reloader = gateway.reloader
        notifier = Notifier.of(os.environ, os.getpid())
        reloader.announced = notifier.reloading
        async with (
            beside(partial(notifier.run, gateway.closing, lambda: longest_stop_s(gateway.config))),
            beside(partial(signals.watch, server)),
            beside(partial(signals.watch_reloads, reloader.try_to_reload)),
            open_flat_nursery() as nursery,
        ):
            addresses: list[ListenAddress | UnixAddress] = await nursery.start(server.run)
            if signals.received is not None:
                return
            signals.mark_ready()
            _give_memory_back()
            notifier.ready(f"ready at {_url(config, addresses[0])}")
            if watch:
                nursery.start_soon(reloader.watch, began_ns)
            # Takes a moment, in which requests are served already.
            unloadable = await trio.to_thread.run_sync(cannot_load, config)
            for lack in unloadable:
                log.warning("%s: %s", config.source, lack.text)
            if signals.received is None:
                incomplete = {lack.model for lack in lacks} | {lack.model for lack in unloadable}
                say_ready(gateway.config, addresses, incomplete, say)

    try:
        trio.run(run)
    except ListenError as error:
        click.echo(f"trio-gateway: {error}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(signals.exit_code)


def say_ready(
    config: GatewayConfig,
    addresses: list[ListenAddress | UnixAddress],
    incomplete: Collection[str | None],
    say: Callable[[str], None] | None = None,
) -> None:
    """`incomplete`: names of models that miss something. `say`: where each line goes; None: to
    stdout."""
    say = say or _say
    urls = [_url(config, address) for address in addresses]
    for url in urls:
        say(f"listening on {url}")
    base, through = _base_of(config, addresses[0])
    say(f"\nReady. Base URL for clients: {base}")
    names = [model.name for model in config.models if not model.hidden]
    if names:
        say(f"Models: {', '.join(names)}")
    if choices := [choice.name for choice in config.choices if not choice.hidden]:
        say(f"Choices among them: {', '.join(choices)}")
    talkers = [m.name for m in config.models if _chats(m) and m.name not in incomplete]
    talker = next((name for name in (*names, *talkers) if name in talkers), None)
    if talker is not None:
        key = f", with an API key in {KEY_VARIABLE}" if config.server.access.api_keys else ""
        say(f"Try it{key}:")
        say(f"  {_chat_command(talker, base, through)}\n")


def _log_line(line: str) -> None:
    """What reads the log wants nothing else between its lines."""
    log.info("%s", line.strip())


def _say(line: str) -> None:
    """A courtesy: a gateway whose terminal is gone, or that nobody reads, runs all the same."""
    try:
        click.echo(line)
    except OSError:
        forget_dead_output()


def _base_of(config: GatewayConfig, address: ListenAddress | UnixAddress) -> tuple[str, str]:
    """The base URL for clients of this machine, and curl's options for it."""
    if isinstance(address, UnixAddress):
        base, through = "http://localhost/v1", f"--unix-socket {shlex.quote(str(address.path))} "
    else:
        base, through = f"{_url(config, address.from_here)}/v1", ""
    if config.server.access.api_keys:
        through += f'-H "Authorization: Bearer ${KEY_VARIABLE}" '
    return base, through


def _chat_command(model: str, base: str, through: str) -> str:
    request = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Name the capital city of France."}],
    }
    body = msgspec.json.encode(request).decode().replace("'", "'\\''")
    content = "-H 'Content-Type: application/json'"
    return f"curl -N {through}{base}/chat/completions {content} -d '{body}'"


def _chats(model: ModelConfig) -> bool:
    """Whether it is likely to answer a chat, and not a model for embeddings or speech."""
    if model.endpoints is not None:
        return "chat/completions" in model.endpoints
    return not model.variants[0].engine_args.is_embedding


def _url(config: GatewayConfig, address: ListenAddress | UnixAddress) -> str:
    if isinstance(address, UnixAddress):
        return str(address)
    return address.url_with("http" if config.server.tls is None else "https")


def _give_memory_back() -> None:
    """What the start needed and has freed, where glibc keeps that: 0.7 MB."""
    with suppress(OSError, AttributeError):  # of another system
        ctypes.CDLL(None).malloc_trim(0)
