"""Two services on one state database: every read and every change by the one that does not run the watcher."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.letters import letters, spoilt
from tests.live import Live, until


@pytest_asyncio.fixture
async def pair(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[tuple[Live, Live]]:
    """The instances a, to which watchers are added and which therefore runs them, and b."""
    async with AsyncExitStack() as stack:
        a, b = [
            await stack.enter_async_context(Live(mongo_uri, nats_url, unique, CHANGEWIRE_INSTANCE=name))
            for name in ("a", "b")
        ]
        await know_each_other(a, b)
        yield a, b


async def know_each_other(a: Live, b: Live) -> None:
    """Wait until each of them can ask the other one."""

    async def answered() -> bool:
        for one, other in ((a, b), (b, a)):
            name = f"probe_{one.environ['CHANGEWIRE_INSTANCE']}"
            await one.call("POST", "/watchers", json=probe(one, name))
            status = (await other.call("GET", f"/watchers/{name}")).json().get("status", {})
            if status.get("as_of") is not None or status.get("instance") != one.environ["CHANGEWIRE_INSTANCE"]:
                return False
        return True

    await until(answered)
    for one in (a, b):
        await one.call("DELETE", f"/watchers/probe_{one.environ['CHANGEWIRE_INSTANCE']}", 204)


def probe(live: Live, name: str) -> dict[str, Any]:
    sink = {"stream": f"{name}_{live.unique}".upper()}
    return live.definition(name, paused=True, source={"collection": f"{name}_{live.unique}"}, sink=sink)


async def test_a_watcher_is_the_same_whichever_instance_is_asked(pair: tuple[Live, Live]) -> None:
    a, b = pair
    await a.add()
    found = await b.get("/watchers/orders")  # at once: b may not have heard of it yet
    assert found["name"] == "orders"
    await b.reaches("RUNNING")
    b.insert(1, 2)
    await b.seen("1", "2")

    async def same() -> bool:
        one, other = await a.get("/watchers/orders"), await b.get("/watchers/orders")
        return bool(one == other and one["status"]["events"]["published"] == 2)

    await until(same)
    status = await b.get("/watchers/orders/status")
    assert (status["instance"], status["as_of"], status["state"]) == ("a", None, "RUNNING")
    assert (await b.get("/watchers/orders/health"))["status"] == "UP"
    assert (await b.get("/watchers/orders/lag"))["as_of"] is None
    assert [each["state"] for each in await b.get("/watchers/orders/history")] == [
        each["state"] for each in await a.get("/watchers/orders/history")
    ]

    async def same_position() -> bool:  # the position is stored a moment after its message, perhaps between two reads
        return bool((await b.get("/watchers/orders/token")) == (await a.get("/watchers/orders/token")))

    await until(same_position)
    assert (await b.get("/watchers/orders/stream"))["messages"] == 2
    for listed in (await a.get("/watchers"), await b.get("/watchers"), await b.get("/watchers?state=running")):
        assert [(each["name"], each["status"]["instance"]) for each in listed] == [("orders", "a")]
    assert await b.get("/watchers?state=paused") == []
    assert list(await b.get("/lag")) == ["orders"]


async def test_messages_can_be_followed_through_every_instance(pair: tuple[Live, Live]) -> None:
    a, b = pair
    await a.add()
    b.insert(1)
    await b.seen("1")
    await b.get("/watchers/orders")
    async with b.http.stream("GET", "/watchers/orders/messages?last=1") as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                assert '"insert"' in line
                break


async def test_every_change_can_be_asked_of_the_instance_that_does_not_run_the_watcher(pair: tuple[Live, Live]) -> None:
    a, b = pair
    await a.add()
    await b.reaches("RUNNING")
    before = (await b.call("GET", "/watchers/orders", 200)).headers["etag"]
    paused = await b.call("PUT", "/watchers/orders/pause", 202, headers={"If-Match": before})
    assert paused.json()["paused"]
    await a.reaches("PAUSED")
    await b.reaches("PAUSED")
    assert await b.refused(412, "PUT", "/watchers/orders/resume", headers={"If-Match": before})
    assert (await a.call("GET", "/watchers/orders", 200)).headers["etag"] == paused.headers["etag"]
    assert "paused" in await b.refused(409, "POST", "/watchers/orders/restart")
    moved = await b.call("PUT", "/watchers/orders/token", 200, json={"at": "earliest"})
    assert moved.json() == await a.get("/watchers/orders/token")
    await b.call("DELETE", "/watchers/orders/token", 200)
    await b.call("PUT", "/watchers/orders/resume", 202)
    await b.reaches("RUNNING")
    await b.call("POST", "/watchers/orders/restart", 202)
    await b.reaches("RUNNING")
    await b.put(sink={"operations": ["insert"]})
    assert (await a.get("/watchers/orders"))["sink"]["operations"] == ["insert"]
    assert (await b.call("PUT", "/watchers/orders?dry_run=true", 200, json=b.definition())).json()["sink"]["operations"]
    assert await b.refused(409, "POST", "/watchers", json=b.definition())
    b.insert(1)
    b.orders.delete_one({"_id": 1})
    b.insert(2)
    await b.seen("1", "2")
    await b.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
    for one in (a, b):
        assert (await one.call("GET", "/watchers/orders")).status_code == 404
        assert await one.get("/watchers") == []
    assert a.checkpoint() == []
    lines = [line for line in a.log.getvalue().splitlines() if '"audit"' in line] or [
        line for line in b.log.getvalue().splitlines() if '"audit"' in line
    ]
    assert any('"through": "b"' in line for line in lines)


async def test_a_snapshot_is_begun_seen_and_cancelled_through_every_instance(pair: tuple[Live, Live]) -> None:
    a, b = pair
    a.orders.insert_many([{"_id": n} for n in range(3)])
    await a.add(paused=True)
    await b.reaches("PAUSED")
    begun = (await b.call("POST", "/watchers/orders/snapshot", 202, json={"filter": {"_id": {"$gt": 0}}})).json()
    assert begun["waits"] == "the watcher is PAUSED"
    for one in (a, b):
        assert (await one.get("/watchers/orders/status"))["snapshot"] == begun
        assert [each["status"]["snapshot"] for each in await one.get("/watchers")] == [begun]
        await one.refused(409, "POST", "/watchers/orders/snapshot")
        assert (await one.call("POST", "/watchers/orders/snapshot", 422, json={"filters": {}})).json()["errors"]
    assert (await b.call("DELETE", "/watchers/orders/snapshot", 202)).json()["state"] == "cancelled"
    assert (await a.get("/watchers/orders/status"))["snapshot"]["state"] == "cancelled"
    await b.refused(409, "DELETE", "/watchers/orders/snapshot")
    await b.call("PUT", "/watchers/orders/resume", 202)
    await b.reaches("RUNNING")
    await b.call("POST", "/watchers/orders/snapshot", 202)
    await b.seen("snapshot 0", "snapshot 1", "snapshot 2", "snapshot_done None")
    lines = [json.loads(line) for each in pair for line in each.log.getvalue().splitlines() if '"audit"' in line]
    noted = [each for each in lines if each["event"] == "audit" and each.get("snapshot") == begun["run"]]
    assert {(each["action"], each.get("through")) for each in noted} == {
        ("begin_snapshot", "b"),
        ("cancel_snapshot", "b"),
    }


async def test_dead_letters_are_seen_and_replayed_through_every_instance(pair: tuple[Live, Live]) -> None:
    a, b = pair
    await a.add()
    b.insert(1)
    for key in (2, 3):
        b.orders.insert_one(spoilt({"_id": key}))
    b.insert(4)
    await b.seen("1", "4")
    found = (await b.get("/watchers/orders/dead-letters"))["dead_letters"]
    assert len(found) == 2
    first, second = (each["sequence"] for each in found)
    assert (await b.get(f"/watchers/orders/dead-letters/{first}"))["sequence"] == first
    assert await b.refused(409, "POST", f"/watchers/orders/dead-letters/{first}/replay")
    await b.call("DELETE", f"/watchers/orders/dead-letters/{first}", 204)
    await b.call("DELETE", f"/watchers/orders/dead-letters/{second}", 204)
    assert await letters(b) == []
    assert (await b.get("/watchers/orders"))["status"]["dead_letters"] == 0


async def knows_who_runs(live: Live, names: list[str]) -> bool:
    """Whether it knows of all, which were added to both instances by turns; the record of the owners follows soon."""
    found = await asyncio.gather(*(live.get(f"/watchers/{name}") for name in names))
    told = [(each["status"]["instance"], each["status"]["as_of"]) for each in found]
    return told == [("a", None), ("b", None)] * (len(names) // 2)


async def test_many_watchers_are_added_listed_and_removed_by_turns(pair: tuple[Live, Live]) -> None:
    a, b = pair
    names = [f"w{number:02}" for number in range(12)]
    for number, name in enumerate(names):
        await pair[number % 2].call("POST", "/watchers", 201, json=probe(a, name))
    for one in pair:
        assert [each["name"] for each in await one.get("/watchers")] == names
        await until(lambda one=one: knows_who_runs(one, names))  # type: ignore[misc]
        assert sorted(await one.get("/lag")) == names
    for name in names:
        await b.call("DELETE", f"/watchers/{name}", 204)
    for one in pair:
        assert await one.get("/watchers") == []


async def test_a_watcher_whose_subjects_are_those_between_instances_is_refused(pair: tuple[Live, Live]) -> None:
    a, _ = pair
    body = {"name": "all", "source": {"database": a.database}, "sink": {"stream": "changewire"}}
    assert "sink.subject" in await a.refused(422, "POST", "/watchers", json=body)


@pytest.mark.parametrize("through", [0, 1])
async def test_a_watcher_whose_instance_stops_is_changed_by_the_other_one(
    pair: tuple[Live, Live], through: int
) -> None:
    a, b = pair
    await a.add()
    await b.reaches("RUNNING")
    if through:
        await a.stop()

        async def runs_at_b() -> bool:
            status = (await b.get("/watchers/orders"))["status"]  # for a moment that which `a` told last
            return bool((status["instance"], status["state"]) == ("b", "RUNNING"))

        await until(runs_at_b)
        await b.call("PUT", "/watchers/orders/pause", 202)
        await a.start()
    else:
        await b.stop()
        await a.call("PUT", "/watchers/orders/pause", 202)
        await b.start()
    for one in pair:
        await one.reaches("PAUSED")
