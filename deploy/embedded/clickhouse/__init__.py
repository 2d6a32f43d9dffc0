"""ClickHouse's HTTP protocol over chDB, the real ClickHouse engine inside a Python process.

chDB cannot listen on a socket and one process owns its folder, so this server gives it an address: clickhouse-connect,
curl, Grafana and any other HTTP client talk to it as they would to a ClickHouse server.

The way of a request::

    app        reads the head and the body (request, access, body)
    statement  finds what kind of statement it is and where its data begins (sql_tokens)
    execution  runs it in a thread of its own connection (engine, settings, sessions, external, processes)
    response   streams the result back, or the error in ClickHouse's own form (channel, encoding, errors)

`engine` is the only file that imports chdb.
"""

from deploy.embedded.clickhouse.options import ClickHouseOptions
from deploy.embedded.clickhouse.server import serve

__all__ = ["ClickHouseOptions", "serve"]
