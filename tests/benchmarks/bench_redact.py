"""What redaction costs an event of 800 B, by what it holds: `python -m tests.benchmarks.bench_redact`.

Beside it, in the same run: decoding and admission as a whole, and the search for signs that the client does without RE2. Only
ratios mean something on a machine that is shared.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence

from ingest.admission import admit
from ingest.contract.event import decode_event
from ingest.contract.redact import COMMON
from ingest.contract.redact_patterns import redactor
from ingest.contract.secret_signs import by_search, may_hold
from ingest.formats import Items
from tests.benchmarks.bench_ingest import events

_ROUNDS = 7


def with_member(made: Sequence[bytes], name: str, value: object) -> list[bytes]:
    """Put a member into the request of each event."""
    found = []
    for raw in made:
        event = json.loads(raw)
        event["data"]["request"][name] = value
        found.append(json.dumps(event, separators=(",", ":")).encode())
    return found


def microseconds(work: Callable[[], object], count: int) -> float:
    """Return what one of `count` costs; the best of some rounds, which others disturbed least."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=2000)
    count = parser.parse_args().events
    plain = events(count, 1, ids=True)
    kinds = {
        "no secret": plain,
        "words that sound like one": with_member(plain, "next_page_token", "CAUQAA-author-key"),
        "a secret member": with_member(plain, "headers", {"Authorization": "Bearer abc.def.ghi"}),
        "a URL with a key": with_member(plain, "url", "https://bob:hunter2@example.com/a?api_key=abc123&page=2"),
        "JSON in a string": with_member(plain, "body", json.dumps({"client_secret": "abc123", "page": 2})),
    }
    now_ms = time.time_ns() // 1_000_000
    own = redactor("EMP-[0-9]{6}")
    print(f"python {platform.python_version()}, events of {sum(map(len, plain)) // count} B; us of CPU an event")
    print(f"{'':28}{'decode':>9}{'look':>9}{'by search':>11}{'redact':>9}{'own':>9}{'admit, of which redaction':>28}")
    for name, made in kinds.items():
        items = Items(raws=made, utf8=True, bytes_max=max(map(len, made)))

        def admitted(rules: object, items: Items = items) -> object:
            return admit(items, project_id="p", accepted_ms=now_ms, redactor=rules)  # type: ignore[arg-type]

        without = microseconds(lambda: admitted(None), count)
        whole = microseconds(lambda: admitted(COMMON), count)
        figures = (
            microseconds(lambda: [decode_event(raw) for raw in made], count),  # noqa: B023
            microseconds(lambda: [may_hold(raw) for raw in made], count),  # noqa: B023
            microseconds(lambda: [by_search(raw) for raw in made], count),  # noqa: B023
            microseconds(lambda: [COMMON.json(raw) for raw in made], count),  # noqa: B023
            microseconds(lambda: [own.json(raw) for raw in made], count),  # noqa: B023
        )
        decode, look, search, redact, rules = figures
        print(f"{name:28}{decode:9.2f}{look:9.2f}{search:11.2f}{redact:9.2f}{rules:9.2f}{whole:14.2f}{whole - without:14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
