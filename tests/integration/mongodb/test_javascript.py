"""JavaScript in a pipeline: refused unless a setting allows it, tried once, and ended on the server when it loops."""

import time
from typing import Any

import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.javascript import javascript_in
from app.domain.watcher import Sink, Source, StoredWatcher, Watcher
from app.mongodb.bounded import run_bounded
from app.mongodb.deployment import MongoDeployment
from tests.live import Live, until

ALLOWED: dict[str, Any] = {"CHANGEWIRE_ALLOW_SERVER_SIDE_JAVASCRIPT": "true"}


def function(body: str) -> dict[str, Any]:
    return {"$set": {"note": {"$function": {"body": body, "args": ["$operationType"], "lang": "js"}}}}


HARMLESS = function("function(it) { return it + '!' }")
ENDLESS = function("function(it) { while (true) {} }")


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        ([HARMLESS], "$function"),
        ([{"$match": {"$or": [{"n": 1}, {"$where": "true"}]}}], "$where"),
        ([{"$set": {"n": {"$cond": [True, {"$accumulator": {}}, 1]}}}], "$accumulator"),
        ([{"$set": {"text": "$function"}}, {"$match": {"where": 1}}], None),
    ],
)
def test_javascript_is_found_wherever_it_stands(pipeline: list[dict[str, Any]], found: str | None) -> None:
    assert javascript_in(pipeline) == found


def scripts(live: Live) -> list[dict[str, Any]]:
    """What runs in the server with a loop of this test's in it."""
    found = live.mongo.admin.aggregate([{"$currentOp": {}}])
    return [one for one in found if one.get("active") and live.unique in str(one) and "while (" in str(one)]


async def test_a_pipeline_with_javascript_is_refused_naming_the_setting(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        wrong = live.definition(source={"pipeline": [{"$match": {}}, ENDLESS]})
        for method, path in (("POST", "/watchers"), ("POST", "/watchers?dry_run=true"), ("PUT", "/watchers/orders")):
            answer = (await live.call(method, path, 422, json=wrong)).json()
            assert [one["field"] for one in answer["errors"]] == ["source.pipeline"]
            assert "$function" in answer["detail"]
            assert "CHANGEWIRE_ALLOW_SERVER_SIDE_JAVASCRIPT" in answer["detail"]
        assert scripts(live) == []


async def test_a_stored_watcher_with_javascript_fails_while_it_is_not_allowed_and_runs_once_it_is(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.stop()
        deployment = MongoDeployment(mongo_uri, state_database=live.state_db)
        source = Source(live.database, live.collection, pipeline=(HARMLESS,))
        place = CheckpointPlace(collection=live.collection)
        await deployment.watchers().insert(StoredWatcher(Watcher("orders", source, Sink(live.stream), place)))
        deployment.close()
        await live.start()
        failed = await live.reaches("FAILED")
        assert "CHANGEWIRE_ALLOW_SERVER_SIDE_JAVASCRIPT" in failed["status"]["reason"]
        move = {"at": "latest"}
        assert "$function" in await live.refused(409, "PUT", "/watchers/orders/token", json=move)
        await live.restart(**ALLOWED)
        await live.reaches("RUNNING")
        live.insert(1)
        (message,) = await live.seen("1")
        assert message.body["note"] == "insert!"


async def test_an_endless_script_is_tried_once_and_ended_on_the_server(
    mongo_uri: str, nats_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def counted(*arguments: Any, **options: Any) -> Any:
        tries.append(1)
        return await run_bounded(*arguments, **options)

    monkeypatch.setattr("app.mongodb.checks.run_bounded", counted)
    async with Live(mongo_uri, nats_url, unique, **ALLOWED) as live:
        endless = live.definition(source={"pipeline": [ENDLESS]})
        for path in ("/watchers?dry_run=true", "/watchers"):
            tries.clear()
            detail = await live.refused(422, "POST", path, json=endless)
            assert "did not end" in detail
            assert len(tries) == 1
            await until(lambda: not scripts(live))
        live.insert(1)
        start = {"at": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5))}}
        paid = {"$match": {"fullDocument._id": 1}}  # nothing made up gets that far
        guarded = function("function(it) { while (it === 'insert') {} ; return it }")
        hidden = live.definition(source={"pipeline": [paid, guarded]}, start=start)
        await live.call("POST", "/watchers?dry_run=true", json=hidden)
        await until(lambda: not scripts(live))


async def test_a_watcher_that_loops_in_a_script_can_be_removed_and_its_script_ends(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    once = function("function(it) { while (it !== 'insert!') {} ; return it }")
    guard = {"$set": {"note": {"$cond": [{"$eq": ["$fullDocument._id", 7]}, once["$set"]["note"], "none"]}}}
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_DRAIN_SECONDS="1", **ALLOWED) as live:
        await live.add(source={"pipeline": [guard]})
        live.insert(1)
        await live.seen("1")
        live.insert(7)
        await until(lambda: scripts(live))
        await live.call("DELETE", "/watchers/orders", 204)
        await until(lambda: not scripts(live))
