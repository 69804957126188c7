"""The registry in a real mongod: what another version wrote, and large pipelines."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.domain.errors import (
    Conflict,
)
from app.domain.lifecycle import Desired
from app.domain.overlap_index import OverlapIndex
from app.domain.watcher import Source, StoredWatcher, Watcher
from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import (
    Client,
)


async def test_a_watcher_of_a_later_version_is_not_taken_for_something_else(
    mongo_uri: str, client: Client, database: str
) -> None:
    mongo = MongoDeployment(mongo_uri, state_database=database)
    watchers = mongo.watchers()
    await watchers.insert(StoredWatcher(Watcher("w", Source("shop", "orders"))))
    await watchers.insert(StoredWatcher(Watcher("x", Source("shop", "items"))))
    client[database].watchers.update_one({"_id": "w"}, {"$set": {"watcher.source.shards": 4}})
    with capture_logs() as logged:
        assert [one.name for one in await watchers.load()] == ["x"]
        assert await watchers.get("w") is None
        with pytest.raises(Conflict):
            await watchers.insert(StoredWatcher(Watcher("w", Source("shop", "orders"))))
    assert [(entry["event"], entry["watcher"]) for entry in logged] == [("watcher_unreadable", "w")]
    mongo.close()


async def test_large_pipelines_are_parsed_once_one_by_one_and_again_where_they_changed(
    mongo_uri: str, client: Client, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongo = MongoDeployment(mongo_uri, state_database=database)
    writer, reader = mongo.watchers(), mongo.watchers()
    large = {"$match": {"a": {"$in": ["x" * 100] * 500}}}
    for name in ("a", "b", "c"):
        await writer.insert(StoredWatcher(Watcher(name, Source("shop", name, pipeline=(large,)))))
    events: list[str] = []

    def parse(text: str) -> Any:
        events.append("parsed")
        return json.loads(text)

    async def other() -> None:
        while True:
            if events[-1:] == ["parsed"]:
                events.append("turn")
            await asyncio.sleep(0)

    monkeypatch.setattr("app.mongodb.watcher_store.json", SimpleNamespace(loads=parse, dumps=json.dumps))
    task = asyncio.create_task(other(), name="other")
    first = await reader.load()
    assert events[:5] == ["parsed", "turn", "parsed", "turn", "parsed"]
    events.clear()
    assert await reader.load() == first
    assert events == []
    changed = [{"$match": {"b": 1}}]
    client[database].watchers.update_one({"_id": "b"}, {"$set": {"watcher.source.pipeline": json.dumps(changed)}})
    assert [list(one.watcher.source.pipeline) for one in await reader.load()] == [[large], changed, [large]]
    task.cancel()
    mongo.close()


async def test_a_change_is_checked_against_what_is_stored_whichever_instance_changed_it(
    mongo_uri: str, client: Client, database: str
) -> None:
    mongo = MongoDeployment(mongo_uri, state_database=database)
    one, other = mongo.watchers(), mongo.watchers()
    seen: list[list[str]] = []

    def check(stored: OverlapIndex) -> None:
        seen.append(sorted(each.name for each in stored))

    def watcher(name: str) -> StoredWatcher:
        return StoredWatcher(Watcher(name, Source("shop", name)))

    await one.insert(watcher("a"), check)
    added = await one.insert(watcher("b"), check)
    await other.insert_all([watcher("c"), watcher("d")], check)
    await one.insert(watcher("e"), check)
    await one.replace(replace(added, desired=Desired.PAUSED), expected_revision=added.revision)
    await one.delete("a")
    await one.check(check)
    await other.delete("d")
    await one.check(check)
    assert seen == [[], ["a"], ["a", "b"], ["a", "b", "c", "d"], ["b", "c", "d", "e"], ["b", "c", "e"]]
    client[database].watchers.delete_one({"_id": "c"})
    assert [each.name for each in await one.load()] == ["b", "e"]
    await one.insert(watcher("f"), check)
    assert seen[-1] == ["b", "e"]
    with pytest.raises(Conflict, match="there is a watcher e already"):
        await one.insert_all([watcher("g"), watcher("e")], check)
    await other.insert(watcher("h"), check)
    assert seen[-1] == ["b", "e", "f"]
    assert sorted(each.name for each in await one.load()) == ["b", "e", "f", "h"]
    mongo.close()


async def test_starts_that_are_taken_back_together_are_taken_back_each_for_its_revision(
    mongo_uri: str, database: str
) -> None:
    mongo = MongoDeployment(mongo_uri, state_database=database)
    store = mongo.watchers()
    added = await store.insert_all(
        [StoredWatcher(Watcher(name, Source("shop", name)), begin="82", new_start=True) for name in "abc"]
    )
    changed = await store.replace(added[2], expected_revision=added[2].revision)
    await asyncio.gather(*(store.began(each.name, each.revision) for each in added))
    assert [(each.name, each.begin) for each in await store.load()] == [("a", None), ("b", None), ("c", "82")]
    await store.began("c", changed.revision)
    assert {each.begin for each in await store.load()} == {None}
    mongo.close()
