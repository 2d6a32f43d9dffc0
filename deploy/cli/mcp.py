"""`toolledger mcp`: stand between an MCP client and an MCP server, and record each tool call."""

import platform
import secrets
from pathlib import Path
from typing import Final

import click

from deploy.cli.common import data_option, service
from ingest.contract.errors import ConfigurationError
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
@click.argument("command", nargs=-1, metavar="-- COMMAND...")
def mcp(data: Path, user: str | None, session: str | None, toolkit: str | None, command: tuple[str, ...]) -> int:
    """Record each tool call between an MCP client and a server, without changing a byte between them.

    Put it in front of the server's command in the client's configuration. A ledger that is away or slow never holds up a call.
    Ends with the server's exit code.
    """
    if not command:
        raise click.UsageError("which server? Name its command behind --", click.get_current_context())
    url, key = service(data)
    setup = Setup(
        url=url,
        api_key=key,
        transport="stdio",
        fallback=_fallback(command),
        run_id=f"mcp_{secrets.token_urlsafe(9)}",
        user=user,
        session=session,
        toolkit=toolkit,
        host=platform.node() or None,
    )
    return _over_pipes(setup, command)


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


def _fallback(command: tuple[str, ...]) -> str:
    """Return a name for a server that does not say its own: of its program, or of what its program runs."""
    words = [word for word in command if not word.startswith("-")]
    named = next((word for word in words if Path(word).name not in _RUNNERS), command[0])
    return Path(named).stem


def _warn(line: str) -> None:
    click.echo(f"toolledger mcp: {line}", err=True)
