"""`toolledger mcp`: stand between an MCP client and an MCP server, and record each tool call."""

import platform
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import click

from deploy.cli.common import data_option, json_option, say, say_json, service
from ingest.client.redaction import redaction
from ingest.contract.addresses import is_http
from ingest.contract.errors import ConfigurationError
from ingest.mcp.recorder import options_of
from ingest.mcp.setup import Setup

# How long the end of a run waits for the ledger; what is not sent by then is sent without us. Clients wait two seconds.
_LINGER_S: Final = 1.0
# What runs a server rather than being one.
_RUNNERS: Final = frozenset(
    {"npx", "uvx", "uv", "node", "python", "python3", "bunx", "bun", "deno", "docker", "env", "sh", "bash"}
)


@click.command(
    epilog="Example: toolledger mcp --user user_123 -- uvx mcp-server-time",
    # What stands behind the server's command is the server's.
    context_settings={"allow_interspersed_args": False},
)
@data_option
@click.option("--user", metavar="U", help="Whose calls these are.")
@click.option("--session", metavar="S", help="Their session; by default the MCP session, else one per run.")
@click.option("--toolkit", metavar="T", help="Their toolkit; by default the name that the server gives itself.")
@click.option("--url", metavar="URL", help="A streamable HTTP server, instead of a command: serve it at a local address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="With --url: the local port; by default a free one.")
@json_option
@click.argument("command", nargs=-1, metavar="-- COMMAND...")
def mcp(
    data: Path,
    user: str | None,
    session: str | None,
    toolkit: str | None,
    url: str | None,
    port: int,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Record each tool call between an MCP client and a server, without changing a byte between them.

    Put it in front of the server's command in the client's configuration; with --url, put the address that it prints in the
    place of the server's. A ledger that is away or slow never holds up a call. Ends with the server's exit code.
    """
    context = click.get_current_context()
    if bool(command) == bool(url):
        raise click.UsageError("which server? Name its command behind --, or its address with --url", context)
    if url is not None and not is_http(url):
        raise click.UsageError(f"{url!r} is no address: --url takes http(s)://host[:port]/path", context)
    address = None if url is None else urlsplit(url)
    ledger_url, key = service(data)
    setup = Setup(
        url=ledger_url,
        api_key=key,
        transport="stdio" if address is None else "http",
        fallback=_fallback(command) if address is None else address.hostname or "",
        run_id=f"mcp_{secrets.token_urlsafe(9)}",
        user=user,
        session=session,
        toolkit=toolkit,
        host=platform.node() or None,
    )
    options = options_of(setup)
    # Said now, where it is read, rather than by the recorder, of whom nobody hears.
    redaction(options)
    return _over_pipes(setup, command) if address is None else _over_http(setup, address, port, as_json=as_json)


def _over_pipes(setup: Setup, command: tuple[str, ...]) -> int:
    from deploy.embedded.process import die_with_parent
    from ingest.mcp.stdio import Pump
    from ingest.mcp.tap import Tap

    tap = Tap(setup, warn=_warn)
    try:
        pump = Pump(command, tap, preexec=die_with_parent())
    except OSError as error:
        raise ConfigurationError(
            f"cannot start {command[0]!r}: {error.strerror or error}; check the server's command"
        ) from None
    tap.start()
    code = pump.run()
    tap.close(pump.ending(), _LINGER_S)
    return code


def _over_http(setup: Setup, address: SplitResult, port: int, *, as_json: bool) -> int:
    from ingest.mcp.serve import serve
    from ingest.mcp.tap import Tap

    shown = urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2]))

    def ready(own: str) -> None:
        here = own + urlunsplit(address._replace(scheme="", netloc=""))
        if as_json:
            say_json(event="ready", url=here, server=shown)
        else:
            say(f"{here} records the tool calls of {shown}; Ctrl-C ends it")

    tap = Tap(setup, warn=_warn)
    tap.start()
    tap.close(serve(address.geturl(), port, tap, ready=ready), _LINGER_S)
    return 0


def _fallback(command: tuple[str, ...]) -> str:
    """Return a name for a server that does not say its own: of its program, or of what its program runs."""
    words = [word for word in command if not word.startswith("-")]
    named = next((word for word in words if Path(word).name not in _RUNNERS), command[0])
    return Path(named).stem


def _warn(line: str) -> None:
    click.echo(f"toolledger mcp: {line}", err=True)
