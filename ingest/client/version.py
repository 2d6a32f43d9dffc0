"""Which version of the client this is."""

import functools
from importlib.metadata import PackageNotFoundError, version


@functools.cache
def user_agent() -> str:
    """Return what the client calls itself."""
    try:
        return f"toolledger-python/{version('toolledger')}"
    except PackageNotFoundError:
        # Run from a folder that was never installed.
        return "toolledger-python"
