"""This machine: the settings it gives to the services, its versions, and the disk under a data folder."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Final

from deploy.doctor.finding import Finding, failed, ok, warning
from ingest.contract.errors import ConfigurationError

_GIB: Final = 1024**3
# Below this Kafka and ClickHouse soon cannot write.
_FREE_BYTES_MIN: Final = _GIB
# Worth a look below this share, unless it is that much after all.
_FREE_SHARE: Final = 0.1
_FREE_BYTES_ENOUGH: Final = 50 * _GIB


def settings() -> Finding:
    """Check whether each service would take the settings of this environment."""
    # Loads the models of all services.
    from deploy.cli.configuration import settings_in_force

    try:
        given = sorted(name for name, _, origin, *_ in settings_in_force() if origin == "environment")
    except ConfigurationError as error:
        return failed("settings", str(error), "correct it in the environment; toolledger config lists what each one means")
    return ok("settings", f"from the environment: {', '.join(given)}" if given else "all as they are by default")


def versions() -> Finding:
    """Tell what runs here; pip has already seen to it that it fits."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiokafka", "faust-streaming", "clickhouse-connect"))
    return ok("versions", f"toolledger {version('toolledger')}, Python {platform.python_version()}, {libraries}")


def folder(data: Path) -> Finding | None:
    """Check the disk of a data folder, None where there is no such folder."""
    if not data.is_dir():
        return None
    usage = shutil.disk_usage(data)
    return disk(f"data folder {data}", free=usage.free, total=usage.total)


def disk(what: str, *, free: int, total: int) -> Finding:
    """Judge how much of a disk is free, in bytes."""
    text = f"{what}: {free / _GIB:,.1f} of {total / _GIB:,.1f} GiB are free"
    if free < _FREE_BYTES_MIN:
        fix = "make room now: without any, Kafka and ClickHouse refuse what is sent (nothing that was accepted is lost)"
        return failed("disk", text, fix)
    if free < min(total * _FREE_SHARE, _FREE_BYTES_ENOUGH):
        return warning("disk", text, "make room, or give it more, before it is full")
    return ok("disk", text)
