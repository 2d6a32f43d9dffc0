"""Ports for servers of tests: no two tests that run at once are given the same, or one beside it."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
# The system hands out ports from 32768 on; one of those could be taken while its server is down for a restart, by a client
# that tries to reach it even.
_FIRST, _END = 12_000, 32_000
# `toolledger up` takes some beside its own, Kafka the next one for its controller.
_APART = 20


def free_port() -> int:
    """Return a port that was free a moment ago, and that neither an outgoing connection nor another test is given."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def _own() -> Iterator[int]:
    """Yield this process's share over and over; from anywhere in it, since there may be another run on this machine."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(_FIRST, _END, _APART)[number::count]
    begun = random.randrange(len(share))
    while True:
        yield from share[begun:]
        yield from share[:begun]


_ports = _own()
