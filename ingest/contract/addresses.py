"""Addresses and keys as people write them: whether they are any, before a connection is tried. Pure.

What opens connections finds the same faults in its own words and at its own time; a library's words may hold the whole key.
"""

from typing import Final
from urllib.parse import urlsplit

_PORT_MAX: Final = 65_535


def is_http(url: str) -> bool:
    """Tell whether a text is http(s)://host[:port], whatever follows it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # No such port, or a bracket that does not close.
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def is_kafka(addresses: str) -> bool:
    """Tell whether a text is host:port, or several with commas between."""
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= _PORT_MAX:
            return False
    return True


def is_service_link(name: str, value: object) -> bool:
    """Tell whether a port's value is the address that Kubernetes gives every container of each service beside it.

    Of a service `toolledger` it comes as TOOLLEDGER_PORT, of `toolledger-query` as TOOLLEDGER_QUERY_PORT: never a setting.
    """
    named = name.lower().endswith("port")
    return named and isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))


def is_key(text: str) -> bool:
    """Tell whether a text can go into a header as a key: printable ASCII, no line end."""
    return text.isascii() and text.isprintable()
