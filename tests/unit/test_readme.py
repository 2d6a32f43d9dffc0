"""The README says what the code says."""

import os
from pathlib import Path

import pytest

from deploy.cli.configuration import settings_in_force

README = Path(__file__).parents[2] / "README.md"


def settings_table() -> str:
    """The table of every setting, as it stands in the README."""
    lines = ["| setting | default | for | meaning |", "|---|---|---|---|"]
    for name, value, _, services, meaning in settings_in_force():
        shown = f"`{value}`" if value else ""
        lines.append(f"| `{name}` | {shown} | {', '.join(services)} | {meaning} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting stands in the README with its default and its meaning, and no other does."""
    for name in list(os.environ):
        if name.upper().startswith("TOOLLEDGER_"):
            monkeypatch.delenv(name)
    assert settings_table() in README.read_text(), f"put this into README.md:\n{settings_table()}"
