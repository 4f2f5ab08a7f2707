"""`trio-gateway status`: what the running gateway does, at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from trio_gateway.commands.asking import asked_gateway, asking_options, json_option, print_json


@click.command()
@asking_options
@json_option
def status(path: Path | None, key_file: TextIO | None, *, as_json: bool) -> None:
    """Show the engines of the running gateway, and what waits for them."""
    with asked_gateway(path, key_file) as gateway:
        engines = gateway.get("/gateway/engines")
        queue = gateway.get("/gateway/queue")
        peers = gateway.get("/gateway/peers")
        place = gateway.place
    if as_json:
        print_json({**engines, **queue, **peers})
        return
    from trio_gateway.commands.tables import console, engines_table, sites_table, waiting_table

    out = console()
    out.print(f"The gateway at {place} runs.\n")
    if last_run := engines.get("last_run"):
        out.print(f"At its start: {last_run['summary']}\n", markup=False, highlight=False)
    if engines["engines"]:
        out.print(engines_table(engines["engines"], out.width))
        if (sites := sites_table(engines["engines"])) is not None:
            out.print()
            out.print(sites)
    else:
        out.print("No engine runs: the next request starts one.")
    for peer in peers["peers"]:
        if (fault := peer["fault"]) is not None:
            kept = f"; still listed: {', '.join(peer['models'])}" if peer["models"] else ""
            where = f"{peer['name']} ({peer['url']})"
            out.print(f"\n{where}: {fault}{kept}.", markup=False, highlight=False)
    if queue["tickets"]:
        out.print(f"\n{len(queue['tickets'])} waiting:")
        out.print(waiting_table(queue["tickets"], out.width))
