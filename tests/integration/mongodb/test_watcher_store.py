"""The registry in a real mongod: what another version wrote, and large pipelines."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.domain.errors import (
    Conflict,
)
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
