"""The demo of `toolledger up --demo`: a project with a key, the recorded tool calls, and a light live stream.

`python -m deploy.demo DATA` prepares it once the stack runs. Safe to repeat: the key stays the same, and the recorded calls
carry their own ids, so that sent again they count nothing twice. Their times are moved by whole days, so that the last of them
was made in the day before the demo's first start: whenever that is, the ranges people look at first have something to show.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from deploy.api import Answer, Api, fault
from deploy.embedded.stack_file import DEMO_KEY, demo_key, write_private
from deploy.simulator import Simulator
from ingest.contract.access import hash_key, new_key
from ingest.contract.errors import ConfigurationError, LedgerError
from query_api.usage.grains import DAY_MS

PROJECT: Final = "demo"
RECORDED: Final = Path(__file__).parents[1] / "tests" / "data" / "airline_tool_calls.ndjson"
# Days that the recorded calls of this data folder were moved by.
_MOVED: Final = "demo_days"
# A new key reaches the services within a second; Kafka may just be electing.
_PATIENCE_S: Final = 20.0
_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 5.0


def main() -> int:
    """Prepare the demo of a running stack: its address and Kafka's come in the environment."""
    data = Path(sys.argv[1])
    try:
        key = asyncio.run(ensure_key(os.environ["TOOLLEDGER_KAFKA"], data))
        import_recorded(Api(os.environ["TOOLLEDGER_URL"], key), data)
    except LedgerError as error:
        sys.stderr.write(f"toolledger: {error}\n")
        return 2
    return 0


async def ensure_key(kafka: str, data: Path) -> str:
    """Return the demo project's key, made at the first start and kept in the data folder for its owner only.

    Kafka may have forgotten it (another Kafka, an emptied folder), and somebody may have revoked it: the first is told again,
    the second is replaced.
    """
    from ingest.keys import create_key, read_access

    access = await read_access(kafka)
    kept = demo_key(data)
    if kept is not None and access.find(kept) is not None:
        return kept
    revoked = kept is not None and any(each.key_hash == hash_key(kept) for each in access.keys.values())
    plain = new_key() if kept is None or revoked else kept
    # Kept before it is told: a key that Kafka knows and nobody has would be worse than one that must be told again.
    write_private(data / DEMO_KEY, plain + "\n")
    await create_key(kafka, project_id=PROJECT, name="demo", key=plain)
    return plain


def import_recorded(api: Api, data: Path, path: Path = RECORDED) -> int:
    """Send the recorded tool calls and return how many were accepted; 0 where the file is not there.

    Raises:
        LedgerError: the service refused them, or did not take them in time.
    """
    if not path.is_file():
        _say("imported nothing: the recorded tool calls come with a checkout (tests/data), not with the package")
        return 0
    calls = [json.loads(line) for line in path.read_bytes().splitlines()]
    days = _days_to_move(data, last_ms=max(call["timestamp"] for call in calls))
    body = b"\n".join(json.dumps({**call, "timestamp": call["timestamp"] + days * DAY_MS}).encode() for call in calls)
    _say(f"importing {len(calls)} recorded tool calls; those known already count once")
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        answer = api.send("POST", "/v1/events", body, {"content-type": "application/x-ndjson"})
        if answer.status == 202:
            accepted = len(answer.json()["ids"])
            _say(f"imported {accepted} recorded tool calls into project {PROJECT}")
            return accepted
        if _all_past_retention(answer):
            _say("imported nothing: the recorded tool calls are past the project's retention")
            return 0
        if not _may_pass(answer) or time.monotonic() > deadline:
            raise fault(answer)
        time.sleep(_PAUSE_S)


def _days_to_move(data: Path, *, last_ms: int) -> int:
    """Return by how many days the recorded calls are moved: decided at the demo's first start, and kept in its data folder."""
    kept = data / _MOVED
    try:
        return int(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        days = (time.time_ns() // 1_000_000 - last_ms) // DAY_MS
        write_private(kept, f"{days}\n")
        return days


def stream(url: str, key: str, *, rate: float, seed: int | None = None, events: int | None = None) -> int:
    """Send made-up tool calls, `rate` a second on average, until stopped or until `events` were sent.

    Returns:
        0; 1 when the service refuses the key or the events for good.
    """
    import setproctitle

    setproctitle.setproctitle("toolledger demo")
    api, simulator = Api(url, key, timeout_s=30), Simulator(seed)
    sent, due = 0, time.monotonic()
    while events is None or sent < events:
        body = json.dumps(simulator.next(time.time_ns() // 1_000_000)).encode()
        refusal = _deliver(api, body)
        if refusal is not None:
            sys.stderr.write(f"toolledger: {refusal}\n")
            return 1
        sent += 1
        # After an outage the stream goes on at its rate, it does not make up for what was not sent.
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
    return 0


def _deliver(api: Api, body: bytes) -> LedgerError | None:
    """Send one event until the service has it, through any restart; its id makes it count once. Return a refusal for good."""
    pause_s, refused_since = _PAUSE_S, None
    while True:
        try:
            answer = api.send("POST", "/v1/events", body, {"content-type": "application/json"})
        except ConfigurationError as error:
            sys.stderr.write(f"waiting: {error}\n")
        else:
            if answer.status == 202:
                return None
            refused_since = (refused_since or time.monotonic()) if answer.status == 401 else None
            if not _may_pass(answer) or (refused_since and time.monotonic() - refused_since > _PATIENCE_S):
                return fault(answer)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S_MAX)


def _all_past_retention(answer: Answer) -> bool:
    """Tell whether each event was refused because retention has taken its time away."""
    if answer.status != 400:
        return False
    codes = {one["code"] for one in answer.json().get("rejected", [])}
    return codes == {"past_retention"}


def _may_pass(answer: Answer) -> bool:
    """Tell whether the same request may succeed later; a key that was just made is unknown for an instant."""
    return answer.status in (401, 429, 502, 503, 504)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
