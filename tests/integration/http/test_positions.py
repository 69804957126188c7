"""Positions moved by hand, over HTTP: what is replayed, once, and what a refused move leaves untouched."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.live import Live, Message, until


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


TOKEN = "/watchers/orders/token"


def in_epoch(messages: list[Message], epoch: int) -> list[str]:
    """The keys published in an epoch, whose number the message ids have to name."""
    suffix = f":{epoch}" if epoch else ""
    return [message.short for message in messages if message.id == message.token + suffix]


async def test_the_token_tells_where_the_watcher_is(service: Live) -> None:
    await service.add(paused=True)
    assert await service.get(TOKEN) == {
        "token": None, "cluster_time": None, "stream_sequence": None, "epoch": 0, "updated_at": None,
    }  # fmt: skip
    await service.resume()
    service.insert(1, 2)
    found = await service.seen("1", "2")
    await service.pause()
    token = await service.get(TOKEN)
    assert (token["token"] >= found[-1].token, token["stream_sequence"], token["epoch"]) == (True, 2, 0)
    (stored,) = service.checkpoint()
    assert (stored["value"], stored["sequence"], stored["watcher"]) == (token["token"], 2, "orders")
    assert abs(datetime.fromisoformat(token["cluster_time"]).timestamp() - stored["clusterTime"].time) < 1


async def test_rewind_by_token_replays_what_came_after_it_once(service: Live) -> None:
    await service.add()
    service.insert(1, 2, 3)
    found = await service.seen("1", "2", "3")
    await service.pause()
    answer = (await service.call("PUT", TOKEN, 200, json={"token": found[0].token})).json()
    assert (answer["token"], answer["epoch"]) == (found[0].token, 1)
    service.insert(4)
    await service.resume()
    found = await service.seen("1", "2", "3", "2", "3", "4")
    assert in_epoch(found, 1) == ["insert 2", "insert 3", "insert 4"]
    service.insert(5)
    await service.seen("1", "2", "3", "2", "3", "4", "5")


async def test_rewind_by_timestamp_replays_from_that_second(service: Live) -> None:
    await service.add()
    service.insert(1)
    (first,) = await service.seen("1")
    second = first.body["clusterTime"]["$timestamp"]["t"]
    key = 1

    async def next_second() -> bool:  # a timestamp means whole seconds of MongoDB's clock
        nonlocal key
        key += 1
        service.insert(key)
        await service.seen(*map(str, range(1, key + 1)))
        return bool((await service.messages())[-1].body["clusterTime"]["$timestamp"]["t"] > second)

    await until(next_second)
    late = (await service.messages())[-1].body["clusterTime"]["$timestamp"]["t"]
    await service.pause()
    timestamp = datetime.fromtimestamp(late, UTC).isoformat()
    await service.call("PUT", TOKEN, 200, json={"timestamp": timestamp})
    await service.resume()
    service.insert("end")
    found = await service.seen(*map(str, range(1, key + 1)), str(key), "end")
    assert in_epoch(found, 1) == [f"insert {key}", "insert end"]


async def test_rewind_to_earliest_replays_all_twice_over_in_epochs_of_their_own(service: Live) -> None:
    service.insert(0)  # before the watcher was there: the oplog has it all the same
    await service.add()
    service.insert(1)
    await service.seen("1")
    for epoch in (1, 2):
        await service.pause()
        assert (await service.call("PUT", TOKEN, 200, json={"at": "earliest"})).json()["epoch"] == epoch
        await service.resume()
        await service.seen("1", *(["0", "1"] * epoch))
    found = await service.seen("1", "0", "1", "0", "1")
    assert [in_epoch(found, epoch) for epoch in range(3)] == [["insert 1"], *[["insert 0", "insert 1"]] * 2]


async def test_skipping_to_latest_leaves_out_what_was_written_meanwhile(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.pause()
    service.insert(2)
    await service.call("PUT", TOKEN, 200, json={"at": "latest"})
    service.insert(3)
    await service.resume()
    await service.seen("1", "3")


async def test_a_rewind_survives_a_restart_of_the_service_before_the_watcher_goes_on(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    found = await service.seen("1", "2")
    await service.pause()
    await service.call("PUT", TOKEN, 200, json={"token": found[0].token})
    await service.restart()
    await service.resume()
    service.insert(3)
    await service.seen("1", "2", "2", "3")


async def test_a_rewind_before_the_stream_was_made_works(service: Live) -> None:
    service.insert(1)
    await service.add(paused=True)
    await service.call("PUT", TOKEN, 200, json={"at": "earliest"})
    await service.resume()
    assert in_epoch(await service.seen("1"), 1) == ["insert 1"]


async def test_deleting_the_token_goes_back_to_the_start(service: Live) -> None:
    service.insert(1)
    await service.add(start={"at": "earliest"})
    service.insert(2)
    await service.seen("1", "2")
    await service.pause()
    assert (await service.call("DELETE", TOKEN, 200)).json()["epoch"] == 1
    await service.resume()
    assert in_epoch(await service.seen("1", "2", "1", "2"), 1) == ["insert 1", "insert 2"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_moving_a_running_watcher_is_409_and_moves_nothing(service: Live, method: str) -> None:
    await service.add()
    service.insert(1)
    (message,) = await service.seen("1")
    await until(lambda: service.checkpoint()[0].get("sequence") == 1)
    (before,) = service.checkpoint()
    assert (before["epoch"], before["sequence"]) == (0, 1)
    body: dict[str, Any] = {"json": {"token": message.token}} if method == "PUT" else {}
    assert "pause" in await service.refused(409, method, TOKEN, **body)
    (after,) = service.checkpoint()
    assert after["value"] >= before["value"]
    # Time may have passed for it meanwhile, without a change.
    assert after == before | {name: after[name] for name in ("value", "clusterTime", "updatedAt", "flush")}
    service.insert(2)
    assert in_epoch(await service.seen("1", "2"), 0) == ["insert 1", "insert 2"]


async def test_tokens_that_cannot_be_are_422_and_the_stored_position_stays(service: Live) -> None:
    await service.add()
    service.insert(1)
    (message,) = await service.seen("1")
    await service.pause()
    other = service.mongo[service.database][f"other_{service.unique}"]
    with other.watch() as changes:
        other.insert_one({"_id": 1})
        foreign = next(changes)["_id"]["_data"]
    before, stored = service.checkpoint(), service.stored()
    token = message.token
    wrong: dict[str, list[Any]] = {
        "token": [
            {"token": foreign},
            {"token": "82FF" + token[4:]},
            {"token": token[:20]},
            {"token": token[:-10]},
            {"token": "not a token"},
            {"token": ""},
            {"token": 5},
            {"token": None},
            {"token": token, "timestamp": "2026-01-01T00:00:00Z"},
        ],
        "timestamp": [
            {"timestamp": "yesterday"},
            {"timestamp": "2026-01-01T00:00:00"},
            {"timestamp": "2099-01-01T00:00:00Z"},
            {"timestamp": "1969-12-31T23:59:59Z"},
            {"timestamp": 1700000000},
        ],
        "at": [{"at": "now"}, {"at": None}, {"at": 5}],
        "body": [{}, [], "latest", None, {"ad": "latest"}],
    }
    for field, body in wrong.items():
        for each in body:
            answer = await service.call("PUT", TOKEN, json=each)
            assert answer.status_code == 422, f"{field} {each}: {answer.text}"
    assert "other_" in await service.refused(422, "PUT", TOKEN, json={"token": foreign})
    assert (service.checkpoint(), service.stored()) == (before, stored)
    await service.resume()
    service.insert(2)
    assert in_epoch(await service.seen("1", "2"), 0) == ["insert 1", "insert 2"]


async def test_a_failed_watcher_can_be_moved_and_goes_on_when_resumed(service: Live) -> None:
    await service.add(sink={"oversize": "fail"})
    service.insert(1)
    await service.seen("1")
    service.orders.insert_one({"_id": 2, "much": "x" * 1_100_000})
    watcher = await service.reaches("FAILED")
    assert "oversize" in watcher["status"]["reason"]
    assert watcher["status"]["last_error"]["type"] == "MessageTooLarge"
    assert (await service.call("GET", "/watchers/orders/health", 503)).json()["status"] == "DOWN"
    await service.call("PUT", TOKEN, 200, json={"at": "latest"})
    await service.resume()
    service.insert(3)
    await service.seen("1", "3")


async def test_removed_with_its_checkpoint_and_added_without_start_goes_on_from_the_stream(service: Live) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
    service.insert(2)
    await service.add()
    service.insert(3)
    assert in_epoch(await service.seen("1", "2", "3"), 0) == ["insert 1", "insert 2", "insert 3"]


@pytest.mark.parametrize(("at", "replayed"), [("earliest", ["1", "2"]), ("latest", [])])
async def test_removed_with_its_checkpoint_and_added_with_a_start_does_what_that_says_in_a_new_epoch(
    service: Live, at: str, replayed: list[str]
) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.call("DELETE", "/watchers/orders?checkpoint=delete", 204)
    service.insert(2)
    await service.add(start={"at": at})
    service.insert(3)
    found = await service.seen("1", *replayed, "3")
    assert in_epoch(found, 1) == [f"insert {key}" for key in (*replayed, "3")]


async def test_start_at_a_token_and_at_a_timestamp(service: Live) -> None:
    await service.add()
    service.insert(1, 2)
    found = await service.seen("1", "2")
    moment = datetime.fromtimestamp(found[0].body["clusterTime"]["$timestamp"]["t"], UTC).isoformat()
    for name, at, expected in (
        ("a", {"token": found[0].token}, ["2"]),
        ("b", {"timestamp": moment}, ["1", "2"]),
    ):
        stream = f"{service.stream}_{name}".upper()
        collection = f"{name}_{service.unique}"
        await service.add(name, sink={"stream": stream}, checkpoint={"collection": collection}, start={"at": at})
        await service.seen(*expected, stream=stream)
    refused = service.definition("c", sink={"stream": f"{service.stream}_C"}, checkpoint={"collection": "c"})
    detail = await service.refused(
        422, "POST", "/watchers", json={**refused, "start": {"at": {"token": "82FF" + found[0].token[4:]}}}
    )
    assert "future" in detail
