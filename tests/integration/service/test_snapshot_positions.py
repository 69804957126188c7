"""Where the place of a snapshot's row stands in for a token: what is answered, stored, set aside and examined then."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from app.domain.tokens import RowPlace, is_token
from tests.letters import letters, spoilt
from tests.live import Live, until
from tests.zygote import changewire

PATH = "/watchers/orders/dead-letters"
BIG = "x" * 1_200_000


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def taken(live: Live) -> dict[str, Any]:
    """Take a snapshot, and return what the status says of it."""
    run = (await live.call("POST", "/watchers/orders/snapshot", 202)).json()["run"]
    seen: dict[str, Any] = {}

    async def over() -> bool:
        seen.update((await live.get("/watchers/orders/status"))["snapshot"] or {})
        return seen.get("run") == run and seen["state"] != "running"

    await until(over)
    assert seen["state"] == "done", seen
    return seen


async def test_documents_that_no_message_can_hold_are_set_aside_and_replayed_as_rows(live: Live) -> None:
    documents: list[Any] = [{"_id": 1}, {"_id": 2, "text": BIG}, {"_id": 3}, spoilt({"_id": 4}), {"_id": 5}]
    live.mongo[live.database].command({"insert": live.collection, "documents": documents})
    await live.add(sink={"oversize": "dead_letter"})
    run = (await taken(live))["run"]
    messages = await live.seen("snapshot 1", "snapshot 3", "snapshot 5", "snapshot_done None")
    assert messages[-1].body["snapshot"]["documents"] == 5
    listed = (await live.get(PATH))["dead_letters"]
    assert [(each["document_key"], each["operation"], each["reason"]) for each in listed] == [
        ({"_id": 2}, "snapshot", "oversize"), ({"_id": 4}, "snapshot", "not_encodable")
    ]  # fmt: skip
    places = [RowPlace.parse(each["token"]) for each in listed]
    assert [(place.run, place.row) for place in places if place is not None] == [(run, 1), (run, 3)]
    for each in await letters(live):
        assert each.headers["Changewire-Token"].replace(".", "_") == each.subject.split(".")[-2]
    await live.restart()
    await live.reaches("RUNNING")
    await live.put(sink={"oversize": "claim_check"})
    await live.reaches("RUNNING")
    first = listed[0]["sequence"]
    answer = (await live.call("POST", f"{PATH}/{first}/replay", 200)).json()
    *_, replayed = await live.seen(
        "snapshot 1", "snapshot 3", "snapshot 5", "snapshot_done None", "snapshot 2"
    )  # fmt: skip
    assert (replayed.id, answer["token"]) == (answer["message_id"], listed[0]["token"])
    assert replayed.id.endswith(f":r:{listed[0]['token']}")
    assert replayed.headers["Changewire-Snapshot"] == run
    bucket, _, name = replayed.headers["Changewire-Object"].partition("/")
    whole = json.loads((await (await live.streams.client.jetstream().object_store(bucket)).get(name)).data or b"")
    assert whole["fullDocument"] == {"_id": 2, "text": BIG}
    said = await live.refused(409, "POST", f"{PATH}/{listed[1]['sequence']}/replay")
    assert "still cannot be published" in said
    live.insert(6)
    await until(lambda: ends_with(live, "insert 6"))


async def ends_with(live: Live, short: str) -> bool:
    return (await live.messages())[-1].short == short


async def test_a_position_within_rows_is_shown_examined_and_moved_as_a_token(live: Live, tmp_path: Path) -> None:
    """A watcher that is paused within a run has such a position. Its token is what can be set, and MongoDB reads on
    after it."""
    live.mongo[live.database][live.collection].insert_many([{"_id": number} for number in range(20)])
    await live.add()
    await taken(live)
    await live.pause()
    row = next(each for each in await live.messages() if each.short == "snapshot 7")
    place = RowPlace.parse(row.id)
    assert place is not None
    own = {"ownSequence": row.sequence, "ownId": row.id}
    within = {"value": place.mark, "row": row.id, "sequence": row.sequence, **own}
    live.positions.update_one({"_id": "orders"}, {"$set": within})
    shown = await live.get("/watchers/orders/token")
    assert (shown["token"], shown["stream_sequence"]) == (place.mark, row.sequence)
    assert is_token(shown["token"])
    doctor = await changewire("doctor", "--json", cwd=tmp_path, env={**os.environ, **live.environ})
    report = json.loads(doctor.output)
    (history,) = [each for each in report["findings"] if (each["about"], each["check"]) == ("orders", "history")]
    assert history["level"] == "ok", history
    await live.call("PUT", "/watchers/orders/token", 200, json={"token": shown["token"]})
    await live.resume()
    live.insert(100)
    await until(lambda: ends_with(live, "insert 100"))
