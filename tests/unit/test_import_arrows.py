"""The arrows between packages: all may import `ingest.contract`; services never import each other; nothing imports `deploy`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest", "processors", "query_api", "deploy")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] in (*PACKAGES, "tests")}


def allowed(importer: str, name: str) -> bool:
    own = importer.split("/", maxsplit=1)[0]
    if own == "deploy":
        return not name.startswith("tests")
    if importer.startswith("ingest/contract/"):
        return name.startswith("ingest.contract")
    return name.split(".", maxsplit=1)[0] == own or name.startswith("ingest.contract")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_follows_an_arrow(path: Path) -> None:
    """A module imports its own package and the contract, and `deploy` whatever it puts together."""
    importer = path.relative_to(ROOT).as_posix()
    assert {name for name in imported(path) if not allowed(importer, name)} == set()


def test_untyped_libraries_stay_behind_few_files() -> None:
    """faust and chdb are reached in the files that are made for it, so that a change of theirs is mended in one place."""
    reach = {"faust": set(), "chdb": set()}
    for path in MODULES:
        text = path.read_text()
        for library, files in reach.items():
            if f"import {library}" in text or f"from {library}" in text:
                files.add(path.relative_to(ROOT).as_posix())
    assert reach["faust"] <= {f"processors/{name}.py" for name in ("driver", "consumer_thread", "app", "run", "broker")}
    assert len(reach["chdb"]) <= 2
