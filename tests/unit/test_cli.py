"""The command line: help at once and with an example, one line for every fault, exit codes as promised."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploy.cli.common import known_key
from deploy.cli.configuration import settings_in_force
from deploy.cli.failures import ago
from deploy.cli.main import cli, main
from deploy.cli.since import since_ms
from deploy.embedded import stack_file
from ingest.contract.errors import ConfigurationError

_PROMISED = {
    "up", "kafka", "clickhouse", "ingest", "worker", "query", "migrate", "topics", "keys", "projects", "send", "logs", "log",
    "usage", "failures", "dead-letters", "verify", "doctor", "config", "mcp",
}  # fmt: skip


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*path, name))


@pytest.fixture(autouse=True)
def _no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLLEDGER_DATA", str(tmp_path))
    for name in ("TOOLLEDGER_URL", "TOOLLEDGER_API_KEY", "TOOLLEDGER_KAFKA", "TOOLLEDGER_CLICKHOUSE"):
        monkeypatch.delenv(name, raising=False)


def test_every_promised_verb_is_there() -> None:
    assert set(cli.list_commands(click.Context(cli))) >= _PROMISED


@pytest.mark.parametrize(
    ("path", "command"), list(_commands(cli)), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_says_what_it_does_and_gives_an_example(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    assert command.epilog
    assert command.epilog.startswith("Example: toolledger ")
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; from deploy.cli.main import main; main(['--help']); "
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "toolledger up --demo" in done.stdout
    for heavy in ("pydantic", "aiokafka", "clickhouse_connect", "polars", "numpy", "rich", "asyncio", "structlog"):
        assert f"'{heavy}'" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'. See 'toolledger --help'."),
        (["keys", "list", "--nonsense"], "No such option"),
        (["projects", "set", "demo"], "nothing to set"),
        (["logs"], "no API key"),
        (["usage", "--by", "nonsense"], "nonsense"),
        (["dead-letters", "list", "--reason", "nonsense"], "nonsense"),
        (["dead-letters", "replay", "--all", "--reason", "nonsense"], "take one of event_too_large, invalid_cloudevent"),
        (["usage", "--corrections"], "no API key"),
        (["failures"], "no API key"),
        (["failures", "--since", "soon"], "'soon' is neither a span"),
        (["failures", "--class", "nonsense"], "nonsense"),
        (["send", "--kafka", "/dev/null"], "--project"),
        (["send", "/nonexistent/calls.ndjson"], "cannot be read"),
        (["topics", "--kafka", "127.0.0.1:1"], "no Kafka answers at 127.0.0.1:1"),
        (["migrate", "--clickhouse", "http://127.0.0.1:1/t"], "no ClickHouse answers at 127.0.0.1:1"),
        (["worker", "--kafka", "nonsense"], "TOOLLEDGER_KAFKA"),
        (["query", "--clickhouse", "nonsense"], "TOOLLEDGER_CLICKHOUSE"),
        (["ingest", "--query-url", "nonsense"], "TOOLLEDGER_QUERY_URL"),
    ],
)
def test_a_fault_is_one_line_on_standard_error_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("toolledger: ")
    assert said.err.count("\n") == 1
    assert says in said.err


_BAD_URL = {"TOOLLEDGER_URL": "http://127.0.0.1:99999"}
_BAD_KEY = {"TOOLLEDGER_API_KEY": "ak_hush\nx"}
_BAD_KAFKA = {"TOOLLEDGER_KAFKA": "foo:bar"}
_BAD_CLICKHOUSE = {"TOOLLEDGER_CLICKHOUSE": "http://writer:hush@127.0.0.1:99999/t"}


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        *((verb, bad) for verb in (["logs"], ["log", "x"], ["usage"], ["failures"]) for bad in (_BAD_URL, _BAD_KEY)),
        *((["send", __file__], bad) for bad in (_BAD_URL, _BAD_KEY)),
        *((["mcp", "--", "true"], bad) for bad in (_BAD_URL, _BAD_KEY)),
        *((["keys", verb], _BAD_KAFKA) for verb in ("create", "list")),
        (["keys", "revoke", "key_1"], _BAD_KAFKA),
        (["projects", "set", "p", "--org", "o"], _BAD_KAFKA),
        *(([verb], _BAD_KAFKA) for verb in ("topics", "verify", "ingest", "worker", "query", "config")),
        (["send", __file__, "--kafka", "--project", "p"], _BAD_KAFKA),
        *((["migrate", "--dry-run"], {"TOOLLEDGER_CLICKHOUSE": bad}) for bad in ("foo", "http://[::1", "127.0.0.1:8123")),
        (["migrate"], _BAD_CLICKHOUSE),
        *((["dead-letters", *verb], _BAD_CLICKHOUSE) for verb in (["list"], ["show", "x"], ["replay", "--all"])),
        *(([verb], _BAD_CLICKHOUSE) for verb in ("worker", "query", "config")),
    ],
    ids=str,
)
def test_a_bad_setting_is_one_line_that_names_it_and_shows_no_secret(
    arguments: list[str], settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLLEDGER_API_KEY", "ak_hush")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("toolledger: ")
    assert said.err.count("\n") == 1
    assert all(name in said.err for name in settings)
    assert "hush" not in said.err


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " "])
def test_a_line_end_that_came_along_with_a_key_is_not_of_it(end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLLEDGER_API_KEY", f"ak_x{end}")
    assert known_key("http://127.0.0.1:8600", tmp_path) == "ak_x"


def test_doctor_tells_every_bad_setting_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a finding beside the others."""
    for name, value in (_BAD_URL | _BAD_KEY | _BAD_KAFKA | _BAD_CLICKHOUSE).items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--json"]) == 1
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    failed = {line["check"] for line in found if line["state"] == "failed"}
    assert failed == {"settings", "kafka", "clickhouse", "service"}
    assert "hush" not in said.out + said.err


def test_no_verb_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_an_address_that_does_not_answer_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLLEDGER_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TOOLLEDGER_API_KEY", "ak_x")
    assert main(["logs"]) == 2
    assert "start it with `toolledger up`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 970_000), ("15m", 100_000), ("1970-01-01T00:00:07Z", 7_000), ("1970-01-01T00:00:07", 7_000), ("9w", 0)],
)
def test_since_is_a_span_before_now_or_a_moment(text: str, expected: int) -> None:
    assert since_ms(text, now_ms=1_000_000) == expected


@pytest.mark.parametrize("text", ["", "soon", "15", "15y", "-1h", "1.5h"])
def test_any_other_since_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        since_ms(text, now_ms=0)


def test_config_tells_where_a_setting_came_from_and_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLLEDGER_CLICKHOUSE", "https://writer:hush@store:8443/t")
    monkeypatch.setenv("TOOLLEDGER_API_KEY", "ak_hush")
    monkeypatch.setenv("TOOLLEDGER_CURSOR_SECRET", "hush")
    monkeypatch.setenv("toolledger_port", "1234")
    rows = {name: (value, origin) for name, value, origin, _, _ in settings_in_force()}
    assert rows["TOOLLEDGER_CLICKHOUSE"] == ("https://writer:***@store:8443/t", "environment")
    assert rows["TOOLLEDGER_API_KEY"] == ("***", "environment")
    assert rows["TOOLLEDGER_PORT"] == ("1234", "environment")
    assert rows["TOOLLEDGER_KAFKA"] == ("127.0.0.1:9092", "default")
    assert "hush" not in str(rows)


def test_a_setting_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what hands on a variable that nobody has set makes it."""
    names = [name for name, *_ in settings_in_force()]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    by_default = {name: value for name, value, *_ in settings_in_force()}
    for name in names:
        monkeypatch.setenv(name, "")
    rows = list(settings_in_force())
    assert {name: value for name, value, *_ in rows} == by_default
    assert {origin for _, _, origin, *_ in rows} == {"default"}


@pytest.mark.parametrize("name", ["TOOLLEDGER_PORT", "TOOLLEDGER_QUERY_PORT", "TOOLLEDGER_WORKER_PORT"])
def test_a_port_that_kubernetes_tells_of_a_service_of_that_name_is_no_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives every container the addresses of its neighbours, under names that are made of theirs."""
    by_default = {name: value for name, value, *_ in settings_in_force()}
    monkeypatch.setenv(name, "tcp://10.96.0.7:8600")
    rows = {name: (value, origin) for name, value, origin, *_ in settings_in_force()}
    assert rows[name] == (by_default[name], "default")


def test_config_names_every_setting_of_every_service_once_with_its_meaning() -> None:
    rows = list(settings_in_force())
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    assert all(text for *_, text in rows)


def test_config_refuses_what_a_service_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLLEDGER_WORKER_PORT", "many")
    with pytest.raises(ConfigurationError, match="TOOLLEDGER_WORKER_PORT"):
        list(settings_in_force())


def test_json_output_is_json_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all({"name", "value", "origin"} <= json.loads(line).keys() for line in said.out.splitlines())


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]], ids=" ".join)
def test_a_closed_standard_output_is_no_fault(arguments: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "deploy.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("variable", "value", "painted"), [("NO_COLOR", "1", False), ("TERM", "dumb", False), ("X", "", True)])
def test_colours_can_be_refused(
    variable: str, value: str, painted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By NO_COLOR and by dumb terminals, of every verb that paints by way of click."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    verb = click.Command("painted", callback=lambda: click.echo(click.style("red", fg="red")))
    monkeypatch.setattr(cli, "get_command", lambda *_: verb)
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda _stream, color: color is False)
    assert main(["painted"]) == 0
    assert ("\x1b[31m" in capsys.readouterr().out) is painted


def test_a_stack_that_was_killed_is_not_found(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stack = stack_file.Stack(url="http://u", kafka="k:1", clickhouse="http://c", query="http://q", workers=(), pid=ended.pid)
    stack_file.write(tmp_path, stack)
    assert stack_file.find(tmp_path) is None


def test_a_process_number_that_another_program_has_now_is_no_running_stack(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        stack = stack_file.Stack(url="http://u", kafka="k:1", clickhouse="c", query="q", workers=("w",), pid=other.pid)
        stack_file.write(tmp_path, stack)
        # Nobody holds the lock of the folder.
        assert stack_file.find(tmp_path) is None
        other.communicate(b"\n")


def test_the_file_of_a_stack_is_for_its_owner_only(tmp_path: Path) -> None:
    stack_file.write(tmp_path, stack_file.Stack(url="u", kafka="k", clickhouse="c", query="q", workers=(), pid=1))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("span_ms", "told"),
    [
        (-5, "0s ago"),
        (59_999, "59s ago"),
        (61_000, "1m 1s ago"),
        (3_599_999, "59m 59s ago"),
        (3_600_000, "1h 0m ago"),
        (172_799_999, "47h 59m ago"),
        (172_800_000, "2d 0h ago"),
    ],
)
def test_how_long_ago_is_told_in_two_units(span_ms: int, told: str) -> None:
    assert ago(span_ms) == told
