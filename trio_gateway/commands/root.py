"""`trio-gateway`: its commands, each in a file of its own."""

from __future__ import annotations

import click

from trio_gateway import __version__
from trio_gateway.commands.cancel import cancel
from trio_gateway.commands.check import check
from trio_gateway.commands.choose import choose
from trio_gateway.commands.cluster import cluster
from trio_gateway.commands.doctor import doctor
from trio_gateway.commands.explain import explain
from trio_gateway.commands.init import init
from trio_gateway.commands.key import key
from trio_gateway.commands.launch import launch
from trio_gateway.commands.logs import logs
from trio_gateway.commands.models import load, pin, unload
from trio_gateway.commands.reload import reload
from trio_gateway.commands.requests import requests
from trio_gateway.commands.serve import serve
from trio_gateway.commands.service import service
from trio_gateway.commands.status import status
from trio_gateway.commands.top import top
from trio_gateway.commands.yield_ import yield_


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def root() -> None:
    """An OpenAI-compatible service over the llama.cpp engines of this machine."""


for _command in (
    init,
    serve,
    check,
    doctor,
    explain,
    key,
    status,
    top,
    requests,
    logs,
    load,
    unload,
    pin,
    choose,
    cancel,
    reload,
    yield_,
    service,
    cluster,
    launch,
):
    root.add_command(_command)
