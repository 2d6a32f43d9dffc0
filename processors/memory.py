"""Memory that is free goes back to the system, so that a worker which caught up once is as small as before.

Numbers: decision 4. Without this a worker that catches up takes some 30 to 60 MiB more.
"""

import ctypes
from typing import Final

import pyarrow as pa

# Source: glibc, malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_ARENA_MAX: Final = -8
# A few threads allocate at once, and blocks are made of pieces far above this.
_ARENAS: Final = 2
_TRIM_BYTES: Final = 1024 * 1024


_libc: Final = ctypes.CDLL(None)


def give_back() -> None:
    """Set the allocators of this process, before its threads begin; what is not there (another libc) stays as it is."""
    # Arrow's own pool keeps what it ever had.
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def trim() -> None:
    """Give back free pages between those in use, which the allocators keep for good; some milliseconds, off the loop.

    Records of a backlog come and go by the thousand between small things that stay, so the heap's end is never free.
    """
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
