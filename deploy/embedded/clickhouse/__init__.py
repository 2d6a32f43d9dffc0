"""ClickHouse's HTTP protocol over chDB, the real ClickHouse engine inside a Python process.

chDB cannot listen on a socket and one process owns its folder, so this server gives it an address: clickhouse-connect,
curl, Grafana and any other HTTP client talk to it as they would to a ClickHouse server.

The way of a request::

    app        reads the head and the body (request, access, body)
    loading    finds the statement and the rows it carries (compression, native_frames, statement, insert, sql_tokens)
    execution  runs it in a thread (connections, sessions, settings, external, rewriting, processes)
    response   streams the result back, or the error in ClickHouse's own form (channel, errors)

`engine` is the only file that imports chdb; `server` puts the parts together. EXCEPTIONS.md says what differs from a server.
"""

from deploy.embedded.clickhouse.options import ClickHouseOptions
from deploy.embedded.clickhouse.server import serve

__all__ = ["ClickHouseOptions", "serve"]
