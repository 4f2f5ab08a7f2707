"""`trio-gateway key`: makes an API key, and the line of the configuration that has its hash."""

from __future__ import annotations

import re
import sys

import click

from trio_gateway.config.key_hash import hash_of, is_hash, new_key
from trio_gateway.config.reading.access import KEY_GOOD_LENGTH, KEY_MAX_LENGTH

KEY_VARIABLE = "TRIO_GATEWAY_KEY"  # where commands find a key to use


@click.command()
@click.option("--name", metavar="NAME", default="client", show_default=True,
              help="Whose key it is: logs and the queue's page show this name.")  # fmt: skip
@click.option(
    "--admin", is_flag=True, help="The key may also use /gateway/, /upstream/ and /slots."
)
@click.option("--forwards", is_flag=True,
              help="The key is another gateway's, which says for whom it asks.")  # fmt: skip
@click.option("--hash", "existing", is_flag=True,
              help="Hash an existing key read from standard input.")  # fmt: skip
def key(name: str, admin: bool, forwards: bool, existing: bool) -> None:
    """Make an API key for `server.api_keys`.

    The key is shown once and not kept. The configuration gets its hash.
    """
    if not name or not name.isprintable() or name != name.strip():
        raise click.BadParameter("expected one line without spaces around it", param_hint="--name")
    secret = _read_key() if existing else new_key()
    if not existing:
        click.echo("The key, for the client. It is not shown again:\n")
        click.echo(f"  {secret}\n")
        click.echo("The line for server.api_keys in the configuration:\n")
    rights = [word for word, has in (("admin", admin), ("forwards", forwards)) if has]
    click.echo(f"  {_line(name, rights, str(hash_of(secret)))}")


def _line(name: str, rights: list[str], hashed: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    more = "".join(f", {right} = true" for right in rights)
    return f'{{ name = "{escaped}", key = "{hashed}"{more} }},'


def _read_key() -> str:
    asks = sys.stdin.isatty()
    text: str = click.prompt("Key", hide_input=True, err=True) if asks else sys.stdin.readline()
    secret = text.strip()
    if not re.fullmatch(r"[!-~]+", secret) or len(secret) > KEY_MAX_LENGTH or is_hash(secret):
        what = f"a key of 1 to {KEY_MAX_LENGTH} visible ASCII characters"
        raise click.UsageError(f"expected {what} in the first line of standard input")
    if len(secret) < KEY_GOOD_LENGTH:
        click.echo(
            f"note: a key of fewer than {KEY_GOOD_LENGTH} characters can be guessed", err=True
        )
    return secret
