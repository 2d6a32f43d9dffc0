"""The live tail: each log that fits exactly once, whatever breaks in between; nobody's slowness costs the others."""

import asyncio
import contextlib
import random
import socket
import time
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.access import Key, hash_key, key_record
from ingest.contract.store import client as open_client
from query_api import log_items
from query_api.filters import OPERATORS
from query_api.live.tail import BYTES_MAX, LINES_MAX
from tests.support import rows
from tests.support.arrivals import HOUR_MS, Arrivals
from tests.support.query_service import KEY_A, KEY_A2, KEY_B, KEYS, query_service
from tests.support.sse import EventStream

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

STREAM = "/v1/logs/stream"
NOW = 1_795_600_000_000
few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROJECT = {key: KEYS[key]["project_id"] for key in (KEY_A, KEY_A2, KEY_B)}
FIELDS = ("tool_slug", "user_id", "session_id", "status")
WORDS = ("", "user_1", "USER_1", "straße", "STRASSE", "100%", "it's", "a:b", "line\nbreak", "ses_1")


@pytest_asyncio.fixture(loop_scope="module")
async def database(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        yield url, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http():
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        yield session


class Follower:
    """A reader that breaks off and comes back as often as it is told to."""

    def __init__(self, http, key=KEY_A, asked=()):
        self.http, self.key, self.asked = http, key, list(asked)
        self.seen = EventStream()
        self.opened = asyncio.Event()

    @property
    def ids(self):
        return [log["id"] for log in self.seen.logs]

    def fits(self, event):
        return event["project_id"] == PROJECT[self.key] and all(holds(event, *one) for one in self.asked)

    async def follow(self, url, *, until=None, logs_max=None):
        """Read until a condition holds or so many more logs were read, then break off."""
        headers = {"x-api-key": self.key} | ({"last-event-id": self.seen.last_id} if self.seen.last_id else {})
        query = "?" + urlencode([("filter", said(*one)) for one in self.asked])
        async with self.http.get(url + STREAM + query, headers=headers) as response:
            assert response.status == 200, await response.text()
            left = logs_max
            async for log in self.seen.read(response):
                self.opened.set()
                left = left if log is None or left is None else left - 1
                if left == 0 or (until is not None and until()):
                    return


def said(field, operator, value):
    return f"{field}:{operator}:{value}"


def holds(event, field, operator, value):
    """Decide a filter the plain way."""
    equal, contained = event[field] == value, value.casefold() in event[field].casefold()
    return {"==": equal, "!=": not equal, "contains": contained, "not_contains": not contained}[operator]


def make_event(chance, number):
    return {
        "id": f"log_{number}",
        "project_id": chance.choice(["proj_a", "proj_a", "proj_b"]),
        # Late ones, early ones, and many of one millisecond.
        "timestamp": NOW + chance.choice([0, 0, chance.randrange(60_000), -chance.randrange(40 * 24 * HOUR_MS)]),
        "tool_slug": chance.choice(["GMAIL_SEND_EMAIL", "GITHUB_CREATE"]),
        "user_id": chance.choice(WORDS),
        "session_id": chance.choice(WORDS),
        "status": chance.choice(["success", "failed"]),
        "metadata": '{"spread":\r\n  "over lines"}',
        # A replay keeps the time it was accepted first.
        **({"accepted_at": NOW - 30 * 24 * HOUR_MS} if chance.random() < 0.05 else {}),
    }


@few
@given(seed=st.integers(0, 2**32))
async def test_each_log_that_fits_comes_exactly_once(clickhouse_url, http, seed):
    """Whatever arrives in whatever order, and however often readers break off and go on at one instance or another."""
    chance = random.Random(seed)
    events = [make_event(chance, number) for number in range(150)]
    followers = [
        Follower(
            http,
            chance.choice([KEY_A, KEY_A, KEY_A2, KEY_B]),
            [
                (chance.choice(FIELDS), chance.choice(OPERATORS), chance.choice(WORDS))
                for _ in range(chance.choice([0, 1, 1, 2]))
            ],
        )
        for _ in range(8)
    ]
    expected = {follower: {event["id"] for event in events if follower.fits(event)} for follower in followers}
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        arrivals = Arrivals(client)
        # What was there before is nobody's news.
        arrivals.batch(
            0, [[{"id": "old", "timestamp": NOW, "project_id": one}] for one in PROJECT.values()], record_ms=NOW
        ).write()
        async with query_service(url, query_tail_poll_s=0.02) as first, query_service(url, query_tail_poll_s=0.05) as second:
            instances = [first.url, second.url]

            async def follow(follower):
                own = random.Random(f"{seed} {followers.index(follower)}")
                while len(follower.ids) < len(expected[follower]):
                    done = lambda: len(follower.ids) >= len(expected[follower])  # noqa: E731
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(own.choice([0.02, 0.2, 20])):
                            await follower.follow(own.choice(instances), until=done, logs_max=own.choice([1, 3, 20, 1000]))

            for follower in followers:
                await follower.follow(chance.choice(instances), until=lambda: True)
            async with asyncio.timeout(60):
                async with asyncio.TaskGroup() as tasks:
                    for follower in followers:
                        tasks.create_task(follow(follower))
                    await arrive(arrivals, chance, events)
            for follower in followers:
                assert sorted(follower.ids) == sorted(expected[follower]), (follower.asked, seed)


async def awaited(what, holds, *, timeout_s=60):
    """Wait until a condition of this process holds."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0.005)
    assert holds(), what


async def arrive(arrivals, chance, events):
    """Write events in batches over four partitions; rows of one may be there long before its receipt."""
    left, open_batches, moment = list(events), {}, NOW
    while left or open_batches:
        partition = chance.randrange(4)
        moment += chance.randrange(2_000)
        if partition in open_batches:
            await asyncio.to_thread(open_batches.pop(partition).prove)
        elif left:
            taken = [left.pop() for _ in range(min(len(left), chance.choice([1, 2, 30])))]
            records = []
            while taken:
                records.append([taken.pop() for _ in range(min(len(taken), chance.choice([1, 1, 5])))])
            batch = arrivals.batch(partition, records, record_ms=moment, hole=chance.choice([0, 0, 2]))
            await asyncio.to_thread(batch.write_rows)
            if chance.random() < 0.7:
                await asyncio.to_thread(batch.prove)
            else:
                open_batches[partition] = batch


async def test_several_hundred_follow_at_once(database, http):
    """Three hundred readers get what fits, once each, and look at ClickHouse together."""
    url, client = database
    arrivals = Arrivals(client)
    async with query_service(url) as service:
        followers = [Follower(http, KEY_A, [("user_id", "==", f"user_{number % 10}")]) for number in range(300)]
        tasks = [
            asyncio.create_task(follower.follow(service.url, until=lambda follower=follower: len(follower.ids) >= 20))
            for follower in followers
        ]
        await asyncio.wait_for(asyncio.gather(*(follower.opened.wait() for follower in followers)), 60)
        for number in range(20):
            made = [[{"id": f"{number}_{user}", "timestamp": NOW, "user_id": f"user_{user}"}] for user in range(10)]
            await asyncio.to_thread(arrivals.batch(number % 3, made, record_ms=NOW + number).write)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
    for number, follower in enumerate(followers):
        assert sorted(follower.ids) == sorted(f"{batch}_{number % 10}" for batch in range(20))


async def test_who_does_not_read_holds_no_memory(database):
    """A reader that stands still has a small buffer, holds nobody up, and gets all it missed once it reads on."""
    url, client = database
    arrivals = Arrivals(client)
    total = 3_000
    async with query_service(url, query_tail_poll_s=0.05) as service:
        address = urlsplit(service.url)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.hostname, address.port))
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(
            slow, f"GET {STREAM} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY_A}\r\n\r\n".encode()
        )
        await awaited("the tail is open", lambda: list(service.services.tails))
        (tail,) = service.services.tails
        most = (0, 0)
        for number in range(20):
            made = [
                [{"id": f"{number}_{one}", "timestamp": NOW, "message": "x" * 4_000} for one in range(total // 20)],
            ]
            await asyncio.to_thread(arrivals.batch(0, made, record_ms=NOW + number).write)
            most = max(most, tail.held)
        await awaited("the tail has fallen behind", lambda: not tail.live)
        assert most[0] <= LINES_MAX
        assert most[1] <= BYTES_MAX
        assert tail.held == (0, 0)
        found, rest = [], b""
        async with asyncio.timeout(60):
            while len(found) < total:
                *lines, rest = (rest + await asyncio.get_running_loop().sock_recv(slow, 1 << 20)).split(b"\n")
                found += [orjson.loads(line[6:])["id"] for line in lines if line.startswith(b"data: ")]
        slow.close()
    assert found == [f"{number}_{one}" for number in range(20) for one in range(total // 20)]


async def test_a_revoked_key_ends_its_tails(database, http):
    """Within moments, and nobody else's."""
    url, _ = database
    async with query_service(url) as service:
        mine, other = Follower(http, KEY_A), Follower(http, KEY_A2)
        tasks = [asyncio.create_task(one.follow(service.url)) for one in (mine, other)]
        await asyncio.gather(mine.opened.wait(), other.opened.wait())
        revoked = Key(id="id_" + KEY_A, key_hash=hash_key(KEY_A), revoked_at_ms=1, **KEYS[KEY_A])
        service.services.control.access.apply(*key_record(revoked))
        await asyncio.wait_for(tasks[0], 60)
        assert mine.seen.comments == ["the API key is no longer in force"]
        assert not tasks[1].done()
        tasks[1].cancel()


async def test_an_id_is_of_one_key_and_question(database, http):
    """Tampered with, of another key, project, or of other filters: 400; the order of filters does not matter."""
    url, _ = database
    async with query_service(url) as service:
        asked = [("user_id", "==", "a"), ("status", "!=", "b")]
        follower = Follower(http, KEY_A, asked)
        await follower.follow(service.url, until=lambda: True)
        given = follower.seen.last_id
        question = [("filter", said(*one)) for one in asked]
        reply = await service.get(STREAM, question, headers={"last-event-id": given[:-1] + ("A" if given[-1] != "A" else "B")})
        assert reply.status == 400
        for key, parameters in ((KEY_A2, question), (KEY_B, question), (KEY_A, question[:1]), (KEY_A, [])):
            reply = await service.get(STREAM, parameters, key=key, headers={"last-event-id": given})
            assert reply.status == 400, reply.body
            assert "Last-Event-ID" in reply.body["error"]["message"]
        again = Follower(http, KEY_A, asked[::-1])
        again.seen.last_id = given
        await again.follow(service.url, until=lambda: True)
        for wrong in ("nonsense=1", "filter=user_id", "filter=user_id:like:a", "filter=colour:==:red", "from=soon", "limit=0"):
            assert (await service.get(f"{STREAM}?{wrong}")).status == 400, wrong


async def test_simple_parameters_are_equality(database, http):
    """`status=failed` is equality, a repeated field takes any of its values, and all parameters must hold."""
    url, client = database
    arrivals = Arrivals(client)
    events = [make_event(random.Random(number), number) | {"project_id": "proj_a"} for number in range(100)]
    async with query_service(url) as service:
        headers = {"x-api-key": KEY_A}
        query = urlencode([("status", "failed"), ("user_id", "user_1"), ("user_id", "straße"), ("user_id", "")])
        expected = [e["id"] for e in events if e["status"] == "failed" and e["user_id"] in ("user_1", "straße", "")]
        assert expected
        async with http.get(f"{service.url}{STREAM}?{query}", headers=headers) as response:
            seen = EventStream()
            async for _ in seen.read(response):
                if not arrivals.next_offset:
                    await asyncio.to_thread(arrivals.batch(0, [events], record_ms=NOW).write)
                if len(seen.logs) == len(expected):
                    break
    assert [log["id"] for log in seen.logs] == expected


async def test_the_very_first_logs_come_once(database, http):
    """Who begins before there is any receipt gets the first logs once, over a break behind any of them."""
    url, client = database
    arrivals = Arrivals(client)
    async with query_service(url) as service:
        followers = [Follower(http) for _ in range(3)]
        tasks = [asyncio.create_task(one.follow(service.url, logs_max=most)) for most, one in enumerate(followers, 1)]
        await asyncio.gather(*(one.opened.wait() for one in followers))
        await asyncio.to_thread(
            arrivals.batch(2, [[{"id": "1", "timestamp": NOW}, {"id": "2", "timestamp": NOW}]], record_ms=NOW).write
        )
        await asyncio.to_thread(arrivals.batch(0, [[{"id": "3", "timestamp": NOW}]], record_ms=NOW + 1).write)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        await asyncio.to_thread(arrivals.batch(1, [[{"id": "4", "timestamp": NOW}]], record_ms=NOW + 2).write)
        for most, one in enumerate(followers, 1):
            await asyncio.wait_for(one.follow(service.url, logs_max=4 - most), 60)
            assert sorted(one.ids) == ["1", "2", "3", "4"]


async def test_a_topic_made_anew_follows_the_former_one(database, http):
    """What was proved of the former topic comes to its end, then the new one from its beginning; over a break as well."""
    url, client = database
    former, anew = Arrivals(client, incarnation="former"), Arrivals(client, incarnation="anew")
    former.batch(0, [[{"id": "before", "timestamp": NOW}]], record_ms=NOW).write()
    async with query_service(url) as service:
        live, broken = Follower(http), Follower(http)
        await broken.follow(service.url, until=lambda: True)
        task = asyncio.create_task(live.follow(service.url, logs_max=4))
        await live.opened.wait()
        former.batch(0, [[{"id": "1", "timestamp": NOW}]], record_ms=NOW + 1).write()
        former.batch(3, [[{"id": "2", "timestamp": NOW}]], record_ms=NOW + 2).write()
        anew.batch(0, [[{"id": "3", "timestamp": NOW}]], record_ms=NOW + 3).write()
        anew.batch(1, [[{"id": "4", "timestamp": NOW}]], record_ms=NOW + 4).write()
        await asyncio.wait_for(task, 60)
        await broken.follow(service.url, logs_max=4)
    for follower in (live, broken):
        assert follower.ids == ["1", "2", "3", "4"]


async def test_what_is_written_again_is_not_shown_again(database, http):
    """After ClickHouse was wiped the same offsets are written in other batches: no repeat, and what is new comes."""
    url, client = database
    made = [[{"id": f"{number}", "timestamp": NOW + number}] for number in range(10)]
    before = Arrivals(client)
    async with query_service(url) as service, contextlib.AsyncExitStack() as stack:
        broken, live = Follower(http), Follower(http)
        for follower in (broken, live):
            await follower.follow(service.url, until=lambda: True)
        before.batch(0, made[:4], record_ms=NOW).write()
        before.batch(0, made[4:6], record_ms=NOW).write()
        await broken.follow(service.url, logs_max=5)
        task = asyncio.create_task(live.follow(service.url, logs_max=10))
        await awaited("six are shown", lambda: len(live.ids) == 6)
        for table in ("tool_executions", "usage_windows"):
            client.command(f"TRUNCATE TABLE {table}")
        again = Arrivals(client)
        again.batch(0, made[:1], record_ms=NOW).write()
        # An instance that began meanwhile knows less than the reader has seen.
        fresh = await stack.enter_async_context(query_service(url))
        resumed = asyncio.create_task(broken.follow(fresh.url, logs_max=5))
        again.batch(0, made[1:8], record_ms=NOW + 5).write()
        again.batch(0, made[8:], record_ms=NOW + 6).write()
        await asyncio.wait_for(asyncio.gather(task, resumed), 60)
    for follower in (broken, live):
        assert follower.ids == [f"{number}" for number in range(10)]


async def test_from_begins_with_what_was_accepted_since(database, http):
    """`from` goes back by acceptance, to the batch; without it a tail begins now."""
    url, client = database
    arrivals = Arrivals(client)
    for number in range(6):
        event = {"id": f"{number}", "timestamp": NOW - number}
        arrivals.batch(number % 2, [[event]], record_ms=NOW + number * 60_000).write()
    async with (
        query_service(url) as service,
        http.get(f"{service.url}{STREAM}?from={NOW + 120_000}", headers={"x-api-key": KEY_A}) as response,
    ):
        seen = EventStream()
        async for _ in seen.read(response):
            if len(seen.logs) == 4:
                break
    assert sorted(log["id"] for log in seen.logs) == ["2", "3", "4", "5"]


async def test_a_limit_ends_it(database, http):
    """`limit` logs and no more, then an end like that of any answer."""
    url, client = database
    arrivals = Arrivals(client)
    arrivals.batch(0, [[{"id": f"{number}", "timestamp": NOW} for number in range(5)]], record_ms=NOW).write()
    async with query_service(url) as service:
        follower = Follower(http)
        async with http.get(f"{service.url}{STREAM}?limit=3&from=0", headers={"x-api-key": KEY_A}) as response:
            async for _ in follower.seen.read(response):
                pass
    assert follower.ids == ["0", "1", "2"]


async def test_too_many_tails_are_refused(database, http):
    """One more than are taken is 503 with Retry-After; a place that was given back is free."""
    url, _ = database
    async with query_service(url, query_tails_max=1) as service:
        follower = Follower(http)
        task = asyncio.create_task(follower.follow(service.url))
        await follower.opened.wait()
        refused = await service.get(STREAM)
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        task.cancel()
        await awaited("its place is given back", lambda: not list(service.services.tails))
        await Follower(http).follow(service.url, until=lambda: True)


async def test_a_log_is_there_within_a_second(database, http):
    """From its receipt to the reader in under a second, as a rule in a poll's time."""
    url, client = database
    arrivals = Arrivals(client)
    async with query_service(url) as service:
        follower = Follower(http)
        task = asyncio.create_task(follower.follow(service.url, logs_max=5))
        await follower.opened.wait()
        waits_s = []
        for number in range(5):
            await asyncio.to_thread(arrivals.batch(0, [[{"id": f"{number}", "timestamp": NOW}]], record_ms=NOW).write)
            proved_s = time.monotonic()
            await awaited("it is shown", lambda number=number: len(follower.ids) > number)
            waits_s.append(time.monotonic() - proved_s)
        await task
        assert min(waits_s) < 1.0


async def test_a_log_that_cannot_be_shown_stops_nobody_elses_tail(database, http, monkeypatch):
    """A mistake of ours about one project's logs: readers of another get all of theirs, and new ones are let in."""
    url, client = database
    arrivals = Arrivals(client)
    shown = log_items.item

    def item(values):
        if values["id"].startswith("poison"):
            raise RecursionError
        return shown(values)

    monkeypatch.setattr(log_items, "item", item)
    async with query_service(url) as service:
        hurt, other = Follower(http), Follower(http, KEY_B)
        tasks = [asyncio.create_task(one.follow(service.url, logs_max=8)) for one in (hurt, other)]
        await asyncio.gather(hurt.opened.wait(), other.opened.wait())
        late = []
        for number in range(8):
            both = [
                [{"id": f"{name}{number}", "timestamp": NOW, "project_id": project}]
                for name, project in (("poison", "proj_a"), ("b", "proj_b"))
            ]
            await asyncio.to_thread(arrivals.batch(number % 3, both, record_ms=NOW + number).write)
            late.append(asyncio.create_task((newcomer := Follower(http, KEY_B)).follow(service.url, until=lambda: True)))
            await asyncio.wait_for(newcomer.opened.wait(), 60)
        await asyncio.wait_for(tasks[1], 60)
        assert other.ids == [f"b{number}" for number in range(8)]
        assert not [id for id in hurt.ids if id.startswith("poison")]
        for task in (tasks[0], *late):
            task.cancel()
        await asyncio.gather(tasks[0], *late, return_exceptions=True)
