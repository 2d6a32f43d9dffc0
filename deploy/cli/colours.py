"""Whether colours are wanted at all; apart, so that help stays instant."""

import os


def no_colours() -> bool:
    """Tell whether the environment refuses colours: https://no-color.org, or a terminal that has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
