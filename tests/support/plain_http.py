"""One HTTP client for all tests: httpx's own functions read the machine's certificates anew with every request."""

from typing import Final

import httpx

# Nothing is kept open: whoever answers may be killed before the next request.
HTTP: Final = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
