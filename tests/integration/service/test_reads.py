"""A watcher's status says which change stream it reads from, and why from one of its own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.mongodb.feeds import group, recent
from tests.live import Live, until

PIPELINE = [{"$match": {"operationType": "insert"}}]
MANY = 40


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "LINGER_SECONDS", 0.5)


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as one:
        yield one


async def add(live: Live, name: str, **source: Any) -> None:
    """Add a watcher of the collection of this name."""
    stream = f"{name}_{live.unique}".upper()
    checkpoint = {"database": f"tokens_{live.unique}", "collection": name}
    await live.add(name, source={"collection": name, **source}, sink={"stream": stream}, checkpoint=checkpoint)


async def reads(live: Live, name: str, how: str, why: str | None) -> None:
    """Wait until the status says this; `why` is a part of the reason."""

    async def so() -> bool:
        status = (await live.get(f"/watchers/{name}"))["status"]
        found = status["reads_why"]
        return status["reads"] == how and (found is None if why is None else why in (found or ""))

    await until(so, seconds=60)


async def test_one_alone_reads_from_its_own_two_share_and_the_last_is_alone_again(live: Live) -> None:
    await add(live, "a")
    await reads(live, "a", "own", "the only watcher of its database")
    await add(live, "b")
    for name in "ab":
        live.mongo[live.database][name].insert_one({"_id": 1})
        await reads(live, name, "shared", None)
    await live.call("DELETE", "/watchers/b", 204)
    await reads(live, "a", "own", "the only watcher of its database")


async def test_a_pipeline_and_other_options_keep_a_watcher_on_its_own_beside_those_that_share(live: Live) -> None:
    await add(live, "filtered", pipeline=PIPELINE)
    await add(live, "plain", full_document="default")
    for name in "ab":
        await add(live, name)
    for name in "ab":
        await reads(live, name, "shared", None)
    await reads(live, "filtered", "own", "pipeline")
    await reads(live, "plain", "own", "the only watcher of its database with these options")


async def test_one_that_is_behind_catches_up_by_its_own_and_shares_again(live: Live) -> None:
    for name in "abc":
        await add(live, name)
    for name in "abc":
        await reads(live, name, "shared", None)
    await live.pause("a")
    collection = live.mongo[live.database]["a"]
    collection.insert_many([{"_id": number} for number in range(MANY)])
    live.mongo[live.database]["b"].insert_one({"_id": 1})
    await live.seen("1", stream=f"b_{live.unique}".upper())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "KEPT_BYTES", 0)  # so it is too far behind
        patch.setattr(group.Group, "join_now", lambda *_: None)  # and stays so for as long as the test looks
        live.mongo[live.database]["b"].insert_one({"_id": 2})
        await live.seen("1", "2", stream=f"b_{live.unique}".upper())
        await live.call("PUT", "/watchers/a/resume", 202)
        await reads(live, "a", "own", "catches up")
    await reads(live, "a", "shared", None)
    await live.seen(*map(str, range(MANY)), stream=f"a_{live.unique}".upper())


async def test_one_whose_collection_becomes_a_view_fails_by_itself_and_says_why(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "VIEWS_SECONDS", 0.5)
    for name in "ab":
        await add(live, name)
    for name in "ab":
        await reads(live, name, "shared", None)
    database, stream = live.mongo[live.database], f"a_{live.unique}".upper()
    database["a"].insert_one({"_id": 1})
    database["a"].drop()
    database.create_collection("a", viewOn="b")
    await live.reaches("FAILED", "a")
    assert "view" in (await live.get("/watchers/a"))["status"]["reason"]
    await live.seen("1", stream=stream)
    database["b"].insert_one({"_id": 1})
    await live.seen("1", stream=f"b_{live.unique}".upper())
    assert (await live.get("/watchers/b"))["status"]["restarts"] == 0
