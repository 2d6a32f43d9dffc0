"""The library that draws the charts: plotly's own JavaScript, as its Python package brings it."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from query_api.dashboard.assets import Asset, asset

# By this name the page asks for it, among its own files.
LIBRARY: Final = "plotly.min.js"
_WITHIN: Final = Path("package_data", "plotly.min.js")


@lru_cache(maxsize=1)
def library() -> Asset:
    """Return the library. Reading and packing its 5 MB takes half a second: once, and only where somebody looks at charts.

    Raises:
        FileNotFoundError: the package is not installed, or is of another shape.
    """
    # Found, not imported: the package's Python side takes a second and is of no use here.
    spec = find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or ():
        return asset((Path(folder) / _WITHIN).read_bytes(), "text/javascript; charset=utf-8")
    raise FileNotFoundError("plotly is not installed: pip install 'toolledger[server]'")
