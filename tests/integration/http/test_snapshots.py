"""Snapshots over HTTP, on real servers: when they begin, what refuses them, what ends them, and what is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.domain.errors import SourceUnavailable
from app.mongodb.feeds import sharing
from app.mongodb.row_source import MongoRowSource
from app.ports import Rows
from tests.live import Live, until
from tests.slow_snapshots import slowed

PATH = "/watchers/orders/snapshot"


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    return slowed(monkeypatch)


def fill(live: Live, count: int, collection: str | None = None) -> None:
    live.mongo[live.database][collection or live.collection].insert_many([{"_id": n} for n in range(count)])


async def status(live: Live, name: str = "orders") -> Any:
    return (await live.get(f"/watchers/{name}/status"))["snapshot"]


async def ended(live: Live, state: str, name: str = "orders") -> Any:
    async def over() -> Any:
        found = await status(live, name)
        return found if found is not None and found["state"] != "running" else None

    found = await until(over, seconds=60)
    assert found["state"] == state, found
    return found


async def under_way(live: Live) -> None:
    async def some() -> bool:
        return 0 < (await status(live))["documents"] < 2000

    await until(some)


async def recreate(live: Live) -> None:
    """Delete the stream and make it again, which is another one then."""
    config = await live.streams.config(live.stream)
    await live.streams.api(f"STREAM.DELETE.{live.stream}")
    await live.streams.api(f"STREAM.CREATE.{live.stream}", config)


async def rows(live: Live, stream: str | None = None) -> list[str]:
    return [each.short for each in await live.messages(stream) if each.headers.get("Changewire-Snapshot")]


def all_rows(count: int) -> list[str]:
    return [*(f"snapshot {n}" for n in range(count)), "snapshot_done None"]


# When one begins


async def test_a_watcher_with_a_snapshot_publishes_the_documents_and_then_the_changes(live: Live) -> None:
    fill(live, 3)
    await live.add(snapshot="initial")
    await ended(live, "done")
    live.insert(3)
    await live.seen(*all_rows(3), "3")
    assert (await live.get("/watchers/orders"))["snapshot"] == "initial"
    await live.put(snapshot="initial", on_history_lost="latest")
    live.insert(4)
    await live.seen(*all_rows(3), "3", "4")


async def test_a_watcher_of_a_snapshot_alone_publishes_no_change_and_its_position_moves_on(live: Live) -> None:
    fill(live, 3)
    await live.add(snapshot="only")
    await ended(live, "done")
    before = (await live.get("/watchers/orders/token"))["token"]
    live.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    live.insert(3)
    again = (await live.call("POST", PATH, 202)).json()
    assert (await ended(live, "done"))["run"] == again["run"]
    await live.seen(*all_rows(3), *all_rows(4))
    assert (await live.get("/watchers/orders/token"))["token"] > before


async def test_one_that_begins_with_a_paused_watcher_waits_for_it_over_a_restart(live: Live) -> None:
    fill(live, 3)
    await live.add(snapshot="initial", paused=True)
    first = await status(live)
    assert (first["state"], first["kind"], first["waits"]) == ("running", "initial", "the watcher is PAUSED")
    await live.restart()
    assert await status(live) == first
    assert (await live.get("/watchers"))[0]["status"]["snapshot"] == first
    assert (await live.refused(409, "POST", PATH)).startswith("a snapshot of orders is running already")
    await live.resume()
    assert (await ended(live, "done"))["run"] == first["run"]
    await live.seen(*all_rows(3))


async def test_a_filter_and_collections_choose_and_are_answered(live: Live) -> None:
    fill(live, 4)
    fill(live, 2, "items")
    fill(live, 2, "other")
    await live.add("shop", source={"collection": None}, sink={"stream": live.stream})
    wish = {
        "filter": {"_id": {"$gt": 0}},
        "collections": [f"{live.database}.{live.collection}", f"{live.database}.items"],
    }
    answer = (await live.call("POST", "/watchers/shop/snapshot", 202, json=wish)).json()
    assert (answer["filter"], answer["state"], answer["waits"]) == (wish["filter"], "running", None)
    found = await ended(live, "done", "shop")
    assert (found["documents"], found["estimated_total"], found["collection"]) == (4, None, None)
    assert sorted(found["collections"]) == sorted(wish["collections"])
    assert (await rows(live)) == ["snapshot 1", "snapshot 1", "snapshot 2", "snapshot 3", "snapshot_done None"]


@pytest.mark.long
async def test_many_wait_for_each_other_and_all_are_taken(
    mongo_uri: str, nats_url: str, unique: str, hurry: asyncio.Event
) -> None:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_SNAPSHOTS_AT_ONCE="1") as live:
        names = [f"w{n}" for n in range(3)]
        for name in names:
            fill(live, 3000, name)
            source, sink = {"collection": name}, {"stream": f"{live.stream}_{name}"}
            await live.add(name, source=source, sink=sink)
        for name in names:
            await live.call("POST", f"/watchers/{name}/snapshot", 202)

        async def waiting() -> bool:
            seen = [await status(live, name) for name in names]
            why = "other snapshots are being read, and 1 at once is the most"
            return sum(each["waits"] == why for each in seen) == 2

        await until(waiting)
        hurry.set()
        for name in names:
            await ended(live, "done", name)
            assert await rows(live, f"{live.stream}_{name}") == all_rows(3000)


async def test_on_a_quiet_shared_change_stream_rows_are_read_again_soon_after_an_error_that_passes(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "QUIET_SECONDS", (1_000.0, 1_000.0))
    fill(live, 10)
    await live.add()
    await live.add("others", source={"collection": "others"}, sink={"stream": f"{live.stream}_others"})

    async def shared() -> bool:
        return (await live.get("/watchers/orders/status"))["reads"] == "shared"

    await until(shared)
    read, failed = MongoRowSource.read, False

    async def once(*args: Any, **options: Any) -> Rows:
        nonlocal failed
        if not failed:
            failed = True
            raise SourceUnavailable("no answer")
        return await read(*args, **options)

    monkeypatch.setattr(MongoRowSource, "read", once)
    await live.call("POST", PATH, 202)
    await ended(live, "done")
    assert await rows(live) == all_rows(10)


# What is refused


@pytest.mark.parametrize(
    ("wish", "field", "problem"),
    [
        ({"filter": {"$nope": 1}}, "filter", "is refused by MongoDB"),
        ({"filter": {"a": {"$oid": "x"}}}, "filter", ""),
        ({"filter": {"$where": "true"}}, "filter", "uses $where"),
        ({"filter": {"$expr": {"$function": {"body": "", "args": [], "lang": "js"}}}}, "filter", "uses $function"),
        ({"filter": {"a": "x" * 300_000}}, "filter", "the maximum is 262144"),
        ({"filter": json.loads('{"a":' * 101 + "1" + "}" * 101)}, "filter", "is nested deeper than 100 levels"),
        ({"filter": {"a": 2**63}}, "filter", "64 bits"),
        ({"filter": "{}"}, "filter", ""), ({"filter": []}, "filter", ""),
        ({"collections": "orders"}, "collections", ""), ({"collections": [7]}, "collections.0", ""),
        ({"collections": ["x.y"] * 201}, "collections", "more than 200 items"),
        ({"collections": ["other.orders"]}, "collections.0", "is not among the collections that the watcher reads"),
        ({"collections": ["orders"]}, "collections.0", "must be database.collection, such as shop.orders"),
        ({"filters": {}}, "filters", "is not a known field"),
    ],
)  # fmt: skip
async def test_a_wish_that_cannot_be_is_refused_at_its_field_and_nothing_begins(
    live: Live, wish: dict[str, Any], field: str, problem: str
) -> None:
    fill(live, 1)
    await live.add()
    found = (await live.call("POST", PATH, 422, json=wish)).json()["errors"]
    assert [each["field"] for each in found] == [field], found
    assert problem in found[0]["detail"]
    assert await status(live) is None
    assert await rows(live) == []


async def test_collections_that_have_no_documents_of_their_own_are_refused_with_the_reason(live: Live) -> None:
    database = live.mongo[live.database]
    fill(live, 1)
    database.create_collection("view", viewOn=live.collection)
    database.create_collection("times", timeseries={"timeField": "at"})
    await live.add("shop", source={"collection": None}, sink={"stream": live.stream})
    for name, problem in (("view", "is a view"), ("times", "is a time series"), ("nobody", "does not exist")):
        wish = {"collections": [f"{live.database}.{live.collection}", f"{live.database}.{name}"]}
        (found,) = (await live.call("POST", "/watchers/shop/snapshot", 422, json=wish)).json()["errors"]
        assert found["field"] == "collections.1"
        assert found["detail"].startswith(problem)
    twice = {"collections": [f"{live.database}.{live.collection}"] * 2}
    (found,) = (await live.call("POST", "/watchers/shop/snapshot", 422, json=twice)).json()["errors"]
    assert found == {"field": "collections.1", "detail": "is named twice"}
    assert await status(live, "shop") is None


@pytest.mark.parametrize(
    ("body", "kind", "answer"),
    [
        (b"", None, 202), (b"null", "application/json", 202), (b"{}", "application/json", 202),
        (b'{"filter":null}', "application/json", 202),
        (b"{", "application/json", 400), (b"[]", "application/json", 422), (b"7", "application/json", 422),
        (b"{}", "text/plain", 415), (b"a=1", "application/x-www-form-urlencoded", 415), (b"{}", None, 415),
        (b'{"collections":null}', "application/json", 422),
    ],
)  # fmt: skip
async def test_what_a_body_may_be(live: Live, body: bytes, kind: str | None, answer: int) -> None:
    await live.add(paused=True)
    headers = {} if kind is None else {"Content-Type": kind}
    await live.call("POST", PATH, answer, content=body, headers=headers)
    assert (await status(live) is None) is (answer != 202)


async def test_only_one_runs_and_only_one_that_runs_is_cancelled(live: Live) -> None:
    await live.refused(404, "POST", PATH)
    await live.refused(404, "DELETE", PATH)
    await live.add(paused=True)
    assert await live.refused(409, "DELETE", PATH) == "no snapshot of orders is running"
    begun = (await live.call("POST", PATH, 202)).json()
    await live.refused(409, "POST", PATH)
    cancelled = (await live.call("DELETE", PATH, 202)).json()
    assert (cancelled["run"], cancelled["state"], cancelled["waits"]) == (begun["run"], "cancelled", None)
    await live.refused(409, "DELETE", PATH)
    assert await status(live) == cancelled
    after = (await live.call("POST", PATH, 202)).json()
    assert after["run"] > begun["run"]


async def test_a_failed_watcher_is_a_conflict(live: Live) -> None:
    await live.add()
    live.insert(1)
    await live.seen("1")
    await recreate(live)
    live.insert(2)
    await live.reaches("FAILED")
    assert (await live.refused(409, "POST", PATH)).startswith("orders is FAILED: ")
    assert await status(live) is None


async def test_a_view_is_no_watcher_and_takes_no_snapshot_with_it(live: Live) -> None:
    live.mongo[live.database].create_collection(live.collection, viewOn="x")
    await live.call("POST", "/watchers", 422, json=live.definition(snapshot="initial"))
    assert list(live.mongo[live.state_db]["snapshots"].find()) == []


# What ends one


async def test_a_cancelled_one_ends_in_the_middle_and_the_next_one_takes_all(live: Live, hurry: asyncio.Event) -> None:
    fill(live, 2000)
    await live.add()
    await live.call("POST", PATH, 202)
    await under_way(live)
    await live.call("DELETE", PATH, 202)
    first = await ended(live, "cancelled")
    assert first["reason"] == "somebody has cancelled it"

    async def begun() -> bool:
        return (await live.call("POST", PATH)).status_code == 202

    await until(begun)
    await live.call("DELETE", PATH, 202)
    live.insert(2000)

    async def there() -> bool:
        return (await live.messages())[-1].short == "insert 2000"

    await until(there)
    found = [each for each in await live.messages() if each.headers.get("Changewire-Snapshot") == first["run"]]
    assert [each.short for each in found] == all_rows(len(found))[: len(found)]
    assert 0 < len(found) < 2000


async def test_a_pause_keeps_it_and_it_goes_on(live: Live, hurry: asyncio.Event) -> None:
    fill(live, 2000)
    await live.add()
    await live.call("POST", PATH, 202)
    await under_way(live)
    await live.pause()
    paused = await status(live)
    assert (paused["state"], paused["waits"]) == ("running", "the watcher is PAUSED")
    assert paused["estimated_end"] is None
    hurry.set()
    await live.resume()
    await ended(live, "done")
    assert await rows(live) == all_rows(2000)


async def test_one_is_cancelled_where_the_watcher_is_replaced_or_moved(live: Live, hurry: asyncio.Event) -> None:
    fill(live, 2000)
    await live.add()
    await live.call("POST", PATH, 202)
    await under_way(live)
    await live.put(sink={"operations": ["insert"]})
    assert (await ended(live, "cancelled"))["reason"] == "the watcher was replaced, and publishes something else"

    async def begun() -> bool:
        return (await live.call("POST", PATH)).status_code == 202

    await until(begun)
    await under_way(live)
    await live.pause()
    await live.call("DELETE", "/watchers/orders/token", 200)
    assert (await ended(live, "cancelled"))["reason"] == "the watcher was moved to another position"
    hurry.set()
    await live.resume()
    again = (await live.call("POST", PATH, 202)).json()["run"]
    await ended(live, "done")
    found = [each.short for each in await live.messages() if each.headers.get("Changewire-Snapshot") == again]
    assert found == all_rows(2000)


async def test_one_is_cancelled_where_the_stream_was_recreated(live: Live, hurry: asyncio.Event) -> None:
    fill(live, 2000)
    await live.add(on_history_lost="latest")
    await live.call("POST", PATH, 202)
    await under_way(live)
    await recreate(live)
    hurry.set()
    found = await ended(live, "cancelled")
    assert found["reason"] == "changes are missing on the stream since it began: a gap marks where"
    await live.reaches("RUNNING")
    await live.call("POST", PATH, 202)
    await ended(live, "done")
    assert (await rows(live))[-2001:] == all_rows(2000)


@pytest.mark.parametrize("checkpoint", ["keep", "delete"])
async def test_a_removed_watcher_leaves_nothing_and_one_of_its_name_finds_nothing(
    live: Live, hurry: asyncio.Event, checkpoint: str
) -> None:
    fill(live, 2000)
    await live.add()
    await live.call("POST", PATH, 202)
    await under_way(live)
    await live.call("DELETE", f"/watchers/orders?checkpoint={checkpoint}", 204)
    assert list(live.mongo[live.state_db]["snapshots"].find()) == []
    hurry.set()
    await live.add()
    assert await status(live) is None
    await live.call("POST", PATH, 202)
    await ended(live, "done")


# What is written down


async def test_the_audit_log_says_who_began_what(live: Live) -> None:
    await live.add(paused=True)
    run = (await live.call("POST", PATH, 202, json={"filter": {"a": 1}})).json()["run"]
    await live.call("DELETE", PATH, 202)
    await live.call("DELETE", PATH, 409)
    lines = [json.loads(each) for each in live.log.getvalue().splitlines()]
    noted = [each for each in lines if each["event"] == "audit" and each["path"] == PATH]
    assert [(each["action"], each["outcome"], each.get("snapshot"), each.get("filter")) for each in noted] == [
        ("begin_snapshot", "done", run, '{"a": 1}'), ("cancel_snapshot", "done", run, None),
        ("cancel_snapshot", "failed", None, None),
    ]  # fmt: skip


async def test_metrics_count_the_documents_and_say_which_runs(live: Live) -> None:
    fill(live, 300)
    await live.add(snapshot="initial")
    await ended(live, "done")
    text = (await live.call("GET", "/metrics", 200)).text
    assert 'changewire_snapshot_documents_total{watcher="orders"} 300.0' in text
    assert 'changewire_snapshot_running{watcher="orders"} 0.0' in text
    await live.call("DELETE", "/watchers/orders", 204)
    assert 'changewire_snapshot_running{watcher="orders"}' not in (await live.call("GET", "/metrics", 200)).text
