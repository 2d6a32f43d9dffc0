"""The whole document of the one address: ingest's part, ours, and what holds for all routes. Pure."""

from functools import lru_cache
from importlib.metadata import version
from typing import Final

from ingest.contract import events_api, traces_api
from ingest.contract.gateway_api import GATEWAY
from ingest.contract.openapi import Json, Part, document
from query_api.openapi.failures import FAILURES
from query_api.openapi.internal import INTERNAL
from query_api.openapi.letters import LETTERS
from query_api.openapi.live import LIVE
from query_api.openapi.logs import LOGS
from query_api.openapi.own import OWN
from query_api.openapi.page_routes import DESCRIPTIONS
from query_api.openapi.shared import HEADERS
from query_api.openapi.usage import USAGE

# In the order of the page.
PARTS: Final[tuple[Part, ...]] = (
    events_api.EVENTS,
    traces_api.TRACES,
    GATEWAY,
    LOGS,
    LIVE,
    FAILURES,
    USAGE,
    OWN,
    LETTERS,
    INTERNAL,
    events_api.MACHINES,
    DESCRIPTIONS,
)

# Where the stack listens unless told otherwise; the page names the address it was asked at.
ADDRESS: Final = "http://127.0.0.1:8600"

_DESCRIPTION: Final = """\
Every tool call of every agent, entered once: searchable as a log within a second, counted exactly once in usage.

The examples are for a shell that knows two variables, and work as they stand:

```
export TOOLLEDGER_URL={address}
export TOOLLEDGER_API_KEY=ak_...
```

**Keys.** Send exactly one: a project's in `x-api-key`, an organisation's in `x-org-api-key`; two of them are a 401. All
that is seen or counted is the key's own; what is another's is as unknown as what never was. A key works within a second
of being made, and stops within a second of being revoked. `x-project-id` and `x-org-id` may name a scope: of an
organisation's key one of its projects, to which it is narrowed then (404 for any other); beside a project's key they must
be its own (403 otherwise).

**Times.** Ranges are half-open everywhere: `from` inclusive, `to` exclusive, in milliseconds. `from` > `to` is a 400,
equal is empty. Days begin at midnight UTC unless `timezone` says otherwise.

**Absent, null and the empty string** are one thing, in bodies, in filters and in groups.

**Numbers.** A whole number is taken in any spelling (`100.0`); `2.5` is not, nor what is out of its bounds.

**Bodies** are JSON in UTF-8, whatever the content type says; only `/v1/events` and `/v1/traces` take packed ones
(`Content-Encoding`), and the latter protobuf.

**Unknown members** are ignored on the routes under `/api`, and tolerated in events. An unknown parameter under `/v1` is
a 400.

**Freshness.** Each answer with data tells in `x-complete-until`, and under `/v1` in `complete_until` too, until when it
is complete: everything Kafka had accepted before that is in it. What came later may be there too, a log a moment
before it is counted.

**Errors** are one shape everywhere but at `/v1/traces`, the Error body: a message for people, a slug for programs, a line
for each fault, and the request id under which the service's log tells more.

**Request ids.** Each answer has one in `x-request-id`: a fresh one, or your own if you send it there, 1 to 128
characters of `A-Za-z0-9_.:/+=@-`.

**Caps.** A question that takes too long is a 504, one that needs too much memory or too many rows a 400; both say how
to narrow it. What has not answered when its caller goes away is stopped.

**Limits.** Requests are counted by key, in minutes of their own that begin with a key's first request. `X-RateLimit` and
`X-RateLimit-Remaining` tell of them; beyond the limit it is a 429, with the whole seconds to wait in `Retry-After`, always
fewer than 60. Unless the deployment sets a limit there is none, and the headers stay as they are. Apart from that a project
has so many questions worked on at once, in turn with the other projects; those that wait too long, or are too many, are a
429 (`Query_TooManyAtOnce`). A URL with its headers takes 64 KiB at most: beyond it is a 414 or 431.
"""


@lru_cache(maxsize=1)
def api() -> Json:
    """Return the document; made once, and not to be changed."""
    return document(
        title="toolledger API",
        version=version("toolledger"),
        description=_DESCRIPTION.format(address=ADDRESS),
        parts=PARTS,
        headers=HEADERS,
    )
