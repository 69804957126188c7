"""`changewire verify` on streams with the rows of a snapshot, against real servers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cli.test_verify import Verifier, delete
from tests.letters import spoilt
from tests.live import Live, Message, until

BIG = "x" * 1_200_000


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


@pytest.fixture
def verify(service: Live, tmp_path: Path) -> Verifier:
    return Verifier(service, tmp_path)


async def taken(service: Live, state: str = "done", **wish: Any) -> str:
    """Take a snapshot; its run."""
    run: str = (await service.call("POST", "/watchers/orders/snapshot", 202, json=wish)).json()["run"]

    async def over() -> bool:
        seen = (await service.get("/watchers/orders/status"))["snapshot"] or {}
        return (seen.get("run"), seen.get("state")) == (run, state)

    await until(over)
    return run


async def ends_with(service: Live, short: str) -> None:
    async def there() -> bool:
        messages = await service.messages()
        return bool(messages) and messages[-1].short == short

    await until(there)


async def snapshotted(service: Live, **parts: Any) -> list[Message]:
    """A stream without a duplicate window: six documents, changes to them, a run of a snapshot, changes again."""
    await service.streams.create(service.stream, duplicate_window=100_000_000, allow_atomic=True, allow_direct=True)
    service.orders.insert_many([{"_id": key, "text": f"text {key}"} for key in range(6)])
    await service.add(**parts)
    service.orders.update_one({"_id": 1}, {"$set": {"text": "changed"}})
    service.orders.delete_one({"_id": 2})
    service.orders.replace_one({"_id": 3}, {"text": "replaced"})
    service.orders.insert_one({"_id": 6, "text": "new"})
    await ends_with(service, "insert 6")
    await taken(service)
    service.orders.update_one({"_id": 1}, {"$set": {"text": "changed again"}})
    service.orders.delete_one({"_id": 3})
    service.insert(7)
    await ends_with(service, "insert 7")
    return await service.messages()


async def test_rows_are_compared_with_the_changes_around_them(service: Live, verify: Verifier) -> None:
    messages = await snapshotted(service)
    report = await verify.finds()
    assert (report["compared"], report["rows"], report["rows_compared"], report["foreign"]) == (7, 6, 3, 0)
    (run,) = report["snapshots"]
    assert (run["documents"], run["complete"], run["state"]) == (6, True, "done")
    assert len(messages) == 14
    done = await verify.run("orders")
    assert "OK: 7 changes, each once and in order; 6 rows of snapshots, each once and in its place" in done.output


async def test_a_lost_row_and_a_lost_end_are_found(service: Live, verify: Verifier) -> None:
    messages = await snapshotted(service)
    await service.pause()
    row = next(each for each in messages if each.short == "snapshot 3")
    end = next(each for each in messages if each.short == "snapshot_done None")
    await delete(service, row.sequence)
    await verify.finds(lost=[row.id])
    await delete(service, end.sequence)
    report = (await verify.run("orders", "--json")).report
    assert [each["token"] for each in report["lost"]["findings"]] == [row.id, None]
    assert "is complete" in report["lost"]["findings"][1]["what"]


@pytest.mark.parametrize(
    ("of", "changed"),
    [("snapshot 0", {}), ("snapshot 1", {"fullDocument": {"_id": 1, "text": "text 1"}})],
    ids=["twice", "older than the change before it"],
)
async def test_a_forged_row_is_found(service: Live, verify: Verifier, of: str, changed: dict[str, Any]) -> None:
    """It takes the place after the last row."""
    messages = await snapshotted(service)
    await service.pause()
    await delete(service, *(each.sequence for each in messages[-4:]))
    last = next(each for each in messages if each.short == "snapshot 6")
    forged = next(each for each in messages if each.short == of)
    place = last.id[:-6] + f"{int(last.id[-6:]) + 1:06}"
    body = {**forged.body, "_id": {"_data": place}, **changed}
    headers = {"Nats-Msg-Id": place, "Changewire-Snapshot": forged.headers["Changewire-Snapshot"]}
    await service.streams.client.jetstream().publish(forged.subject, json.dumps(body).encode(), headers=headers)
    if changed:
        await delete(service, forged.sequence)
    report = (await verify.run("orders", "--json")).report
    if changed:
        (altered,) = report["altered"]["findings"]
        assert "is not as the changes before it have left it, in text" in altered["what"]
    else:
        assert [each["token"] for each in report["doubled"]["findings"]] == [place]


async def test_rows_in_the_object_store_and_rows_that_were_set_aside(service: Live, verify: Verifier) -> None:
    documents: list[Any] = [{"_id": 1}, {"_id": 2, "text": BIG}, spoilt({"_id": 3}), {"_id": 4, "text": BIG}]
    service.mongo[service.database].command({"insert": service.collection, "documents": documents})
    await service.add(sink={"oversize": "dead_letter"})
    await taken(service)
    report = await verify.finds()
    assert (report["rows"], report["not_compared"]) == (1, {"documents of snapshots are dead letters": 3})
    await service.put(sink={"oversize": "claim_check"})
    await service.reaches("RUNNING")
    (first, *_) = (await service.get("/watchers/orders/dead-letters"))["dead_letters"]
    await service.call("POST", f"/watchers/orders/dead-letters/{first['sequence']}/replay", 200)
    report = await verify.finds()
    assert (report["rows"], report["foreign"]) == (1, 0)
    assert "is the replay of a dead letter: snapshot" in report["notes"][-1]
    await taken(service)
    report = await verify.finds()
    assert [run["rows"] for run in report["snapshots"]] == [1, 3]


async def test_a_list_of_writes_beside_rows(service: Live, verify: Verifier, tmp_path: Path) -> None:
    await snapshotted(service)
    kinds = [("update", 1), ("delete", 2), ("replace", 3), ("insert", 6), ("update", 1), ("delete", 3), ("insert", 7)]
    path = tmp_path / "writes"
    path.write_text("\n".join(json.dumps({"operation": kind, "id": key}) for kind, key in kinds))
    report = await verify.finds("--writes", str(path))
    assert (report["compared"], report["rows"], report["not_compared"]) == (7, 6, {})


async def test_a_run_that_was_cancelled_and_one_of_a_filter(service: Live, verify: Verifier) -> None:
    await snapshotted(service)
    await taken(service, filter={"_id": {"$gte": 5}})
    await service.pause()
    await service.call("POST", "/watchers/orders/snapshot", 202)
    await service.call("DELETE", "/watchers/orders/snapshot", 202)
    report = await verify.finds()
    assert [run["rows"] for run in report["snapshots"]] == [6, 3]
    assert report["notes"] == []
    await service.resume()
    await service.reaches("RUNNING")
    await verify.finds()


async def test_rows_of_a_whole_database_have_the_subjects_of_their_collections(service: Live, verify: Verifier) -> None:
    database = service.mongo[service.database]
    for name in ("a", "b"):
        database[name].insert_many([{"_id": key, "text": name} for key in range(3)])
    sink = {"stream": service.stream, "subject": f"{service.stream}.{{collection}}.{{operation}}"}
    await service.add(source={"collection": None}, sink=sink)
    database["b"].update_one({"_id": 1}, {"$set": {"text": "changed"}})
    await taken(service)
    report = await verify.finds()
    assert (report["compared"], report["rows"], report["rows_compared"]) == (1, 6, 1)
    messages = await service.messages()
    assert [each.subject.removeprefix(f"{service.stream}.") for each in messages[-2:]] == [
        "b.snapshot", "_.snapshot_done"
    ]  # fmt: skip
