"""`toolledger`: the command line. Each command's module is loaded when that command is asked for, so that help is instant."""

import errno
import importlib
import io
import os
import sys
from typing import Any, Final, TextIO

import click

from deploy.cli.colours import no_colours
from ingest.contract.errors import LedgerError

# verb: (module, one line of help). In the order of use: run, prepare, feed, look, prove, help.
_VERBS: Final = {
    "up": ("servers", "Run the whole stack on this machine, at one address."),
    "kafka": ("servers", "Run the embedded Kafka alone."),
    "clickhouse": ("servers", "Run the embedded ClickHouse alone."),
    "ingest": ("servers", "Run the ingest service alone."),
    "worker": ("servers", "Run one worker alone."),
    "query": ("servers", "Run the query service alone."),
    "simulate": ("servers", "Send a light stream of made-up tool calls."),
    "migrate": ("schema", "Apply the missing SQL migrations."),
    "topics": ("schema", "Create the missing Kafka topics."),
    "keys": ("access", "Create, list and revoke API keys."),
    "projects": ("access", "Set what is stored of a project, and for how long."),
    "send": ("send", "Publish tool calls from NDJSON or JSON files."),
    "mcp": ("mcp", "Record the tool calls between an MCP client and a server."),
    "logs": ("logs", "Show what happened, newest first."),
    "log": ("one_log", "Show one tool call in full."),
    "usage": ("usage", "Show calls, error rates and percentiles."),
    "failures": ("failures", "Show what failed, why, and what to do."),
    "dead-letters": ("dead_letters", "See input that is no event, mend it, replay it exactly once."),
    "verify": ("schema", "Prove that nothing is missing and nothing counted twice."),
    "retention": ("schema", "Take away what is past its project's retention."),
    "doctor": ("doctor", "Look at everything a ledger needs, and say what to do."),
    "config": ("configuration", "Show the settings in force and where each came from."),
}
_USAGE: Final = 2
_INTERRUPTED: Final = 130
# What keeps standard output from being written, but for a reader that has gone.
_UNWRITABLE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


class _Verbs(click.Group):
    """Looks commands up by the table above."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command = getattr(importlib.import_module(f"deploy.cli.{_VERBS[name][0]}"), name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _VERBS.items()])


@click.group(cls=_Verbs, epilog="Example: toolledger up --demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="toolledger", prog_name="toolledger", message="%(prog)s %(version)s")
def cli() -> None:
    """Every tool call of every agent, entered once: searchable as a log, counted exactly once in usage."""
    if no_colours():
        # What click paints is plain then, in every verb; rich hears it by itself.
        click.get_current_context().color = False


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 the answer is "no", 2 wrong use or settings, or a server that does not answer; one line on standard error.
    """
    if sys.stdout is None:
        # Closed by whoever started this.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process is there
    _show_what_can_be_shown(sys.stdout)
    try:
        code: Any = cli.main(arguments, prog_name="toolledger", standalone_mode=False)
        # Here, because what fails when Python ends is a traceback.
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return _USAGE
    except (click.ClickException, LedgerError) as error:
        return _fault(error)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # Whoever read our output has seen enough, as `head` does. click and rich make an exit with 1 of it.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _mute(sys.stdout, sys.stderr)
        return 0
    except OSError as error:
        # Of a file that a command reads or writes it says itself what is wrong.
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _mute(sys.stdout)
        return _fault(LedgerError(f"the output cannot be written: {error.strerror}"))
    return code if isinstance(code, int) else 0


def _show_what_can_be_shown(output: TextIO) -> None:
    """Let no character fail a command that this locale cannot write.

    On a terminal one character stands for one, so that columns stay; elsewhere it is escaped, so that none is lost.
    """
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace" if output.isatty() else "backslashreplace")


def _mute(*streams: TextIO) -> None:
    """Let go of what could not be written: Python must not fail on it once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _fault(error: click.ClickException | LedgerError) -> int:
    line = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        line = f"{line.rstrip('.')}. See '{error.ctx.command_path} --help'."
    click.echo(f"toolledger: {' '.join(line.split())}", err=True)
    return _USAGE


if __name__ == "__main__":
    sys.exit(main())
