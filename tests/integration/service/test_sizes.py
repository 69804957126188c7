"""Changes that no message can hold by their nature: sizes of ids, subjects and messages that NATS does not take.

Nothing of that may hold others up: a second watcher on the same service keeps its connection throughout.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bson
import pytest
import pytest_asyncio

from app.devservers.servers import NatsServer
from tests.conftest import MakeNats
from tests.credentials import Operator
from tests.letters import letters, spoilt
from tests.live import Live, until

SIZES = [33_000, 200_000, 600_000]
LETTERS = "/watchers/orders/dead-letters"
CUT = '"event": "nats_disconnected"'


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


def _neighbours(live: Live) -> str:
    return f"neighbours_{live.unique}"


async def add_neighbour(live: Live) -> None:
    """A healthy watcher beside the one under test."""
    source = {"database": live.database, "collection": _neighbours(live)}
    body = {"name": "neighbour", "source": source, "sink": {"stream": f"N_{live.stream}"}}
    await live.call("POST", "/watchers", 201, json=body)
    await live.reaches("RUNNING", "neighbour")


async def neighbour_is_well(live: Live, cuts: int = 0) -> None:
    """It publishes, and nothing has cut its connection (more often than is said)."""
    live.mongo[live.database][_neighbours(live)].insert_one({})

    async def there() -> bool:
        return len(await live.messages(f"N_{live.stream}")) == live.mongo[live.database][
            _neighbours(live)
        ].count_documents({})

    await until(there)
    status = await live.get("/watchers/neighbour/status")
    assert live.log.getvalue().count(CUT) == cuts, live.log.getvalue()
    assert status["restarts"] <= cuts


# Ids


@pytest.mark.parametrize("size", SIZES)
async def test_an_id_that_no_header_holds_becomes_a_dead_letter(live: Live, size: int) -> None:
    await add_neighbour(live)
    await live.add(sink={"oversize": "dead_letter"})
    live.insert(1, "y" * size, 2)
    live.orders.update_one({"_id": "y" * size}, {"$set": {"n": 1}})
    live.orders.delete_one({"_id": "y" * size})
    live.insert(3)
    await live.seen("1", "2", "3")
    stored = await letters(live)
    assert [letter.headers["Changewire-Operation"] for letter in stored] == ["insert", "update", "delete"]
    assert {letter.headers["Changewire-Reason"] for letter in stored} == {"oversize"}
    answer = await live.get(LETTERS)
    assert "resume token" in answer["dead_letters"][0]["error"]
    for listed in answer["dead_letters"]:
        whole = await live.get(f"{LETTERS}/{listed['sequence']}")
        assert whole["bytes"] > size
    await neighbour_is_well(live)

    # The position may be the long token itself, or, where the server has written elsewhere since, a later one.
    async def is_stored() -> bool:
        live.insert(("z" * size) + str(next(numbers)))
        return bool(live.checkpoint()) and len(live.checkpoint()[0]["value"]) > 2 * size

    numbers = itertools.count()
    await until(is_stored, seconds=60)
    await live.restart()
    await live.reaches("RUNNING")
    live.insert(4)
    await live.seen("1", "2", "3", "4")
    assert (await live.get(LETTERS))["total"] == 3 + next(numbers)
    await neighbour_is_well(live)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("oversize", ["claim_check", "fail"])
async def test_an_id_that_no_header_holds_fails_the_watcher_where_dead_letters_are_not_asked_for(
    live: Live, size: int, oversize: str
) -> None:
    await add_neighbour(live)
    await live.add(sink={"oversize": oversize})
    await live.pause()
    live.insert(1, "y" * size, 2)  # which one reply brings
    await live.call("PUT", "/watchers/orders/resume", 202)
    watcher = await live.reaches("FAILED")
    reason = watcher["status"]["reason"]
    assert "resume token" in reason
    assert "sink.oversize to dead_letter" in reason
    assert len(reason) < 1000
    await live.seen("1")
    await neighbour_is_well(live)
    await live.put(sink={"oversize": "dead_letter"})
    await live.call("PUT", "/watchers/orders/resume", 202)
    await live.seen("1", "2")


async def test_an_id_that_a_header_holds_is_published_under_it(live: Live) -> None:
    await live.add()
    live.insert(1, "y" * 30_000, 2)
    messages = await live.seen("1", "y" * 30_000, "2")
    assert messages[1].id == messages[1].token


async def test_a_large_body_with_a_long_id_is_a_claim_check(live: Live) -> None:
    await live.add()
    live.insert(1)
    live.orders.insert_one({"_id": "y" * 20_000, "text": "x" * 1_200_000})
    live.insert(2)
    await until(lambda: _count(live, 3))
    pointer = (await live.messages())[1]
    bucket, _, name = pointer.headers["Changewire-Object"].partition("/")
    body = (await (await live.streams.client.jetstream().object_store(bucket)).get(name)).data or b""
    assert len(body) > 1_200_000


async def _count(live: Live, count: int) -> bool:
    return len(await live.messages()) >= count


async def test_a_change_that_cannot_be_encoded_is_a_dead_letter_with_any_id(live: Live) -> None:
    await live.add()
    live.insert(1)
    document = spoilt({"_id": "y" * 200_000})
    live.mongo[live.database].command({"insert": live.collection, "documents": [document]})
    live.insert(2)
    await live.seen("1", "2")
    (letter,) = await letters(live)
    assert letter.headers["Changewire-Reason"] == "not_encodable"


async def test_a_letter_with_a_long_token_is_replayed(live: Live) -> None:
    await live.add()
    live.insert(1)
    document = {"_id": "y" * 6_000, "text": "x" * 1_200_000}
    await live.put(sink={"oversize": "dead_letter"})
    live.orders.insert_one(document)
    live.insert(2)
    await live.seen("1", "2")
    (listed,) = (await live.get(LETTERS))["dead_letters"]
    assert len(listed["token"]) < 100
    await live.put(sink={"oversize": "claim_check"})
    answer = (await live.call("POST", f"{LETTERS}/{listed['sequence']}/replay", 200)).json()
    assert len(answer["message_id"]) < 500
    await until(lambda: _count(live, 3))
    assert (await live.messages())[2].id == answer["message_id"]
    assert (await live.get(LETTERS))["total"] == 0


# Subjects


async def test_a_subject_longer_than_a_command_is_refused_at_the_door(live: Live) -> None:
    await add_neighbour(live)
    for length in (4_090, 6_000):
        subject = f"{live.stream}.{'s' * (length - len(live.stream) - 12)}.{{operation}}"
        answer = (await live.call("POST", "/watchers", 422, json=live.definition(sink={"subject": subject}))).json()
        assert [each["field"] for each in answer["errors"]] == ["sink.subject"]
    await neighbour_is_well(live)


async def test_the_longest_subject_works(live: Live) -> None:
    literal = "s" * (4_000 - len(f"{live.stream}..replace"))
    await live.add(sink={"subject": f"{live.stream}.{literal}.{{operation}}"})
    live.insert(1)
    (message,) = await live.seen("1")
    assert len(message.subject) == 3_999
    status = (await live.get("/watchers/orders"))["status"]
    assert status["publish_mode"] == "atomic"  # a fast-ingest batch needs longer commands
    assert "shorter sink.subject" in str(status)


async def test_a_subject_that_a_fast_ingest_batch_just_has_room_for(live: Live) -> None:
    literal = "s" * (4_096 - 140 - len(f"{live.stream}..replace"))
    await live.add(sink={"subject": f"{live.stream}.{literal}.{{operation}}"})
    assert (await live.reaches("RUNNING"))["status"]["publish_mode"] == "fast_ingest"
    live.insert(*range(1, 1_500))
    await live.seen(*range(1, 1_500))


# Limits that the server does not tell


async def test_a_lower_max_control_line_is_learnt_once_and_fails_the_watcher_that_exceeds_it(
    mongo_uri: str, make_nats: MakeNats, unique: str
) -> None:
    server: NatsServer = await make_nats()
    async with Live(mongo_uri, server.url, unique) as live:
        await add_neighbour(live)
        long = f"{live.stream}.{'s' * 1_500}.{{operation}}"
        await live.add(sink={"subject": long})
        live.insert(1)
        await live.seen("1")
        server.config = "max_control_line: 1024"
        await asyncio.to_thread(server.reload)
        await until(lambda: "Reloaded: max_control_line" in server.log.read_text())
        live.insert(2)
        watcher = await live.reaches("FAILED")
        assert "max_control_line" in watcher["status"]["reason"]
        await neighbour_is_well(live, cuts=1)
        await live.call("PUT", "/watchers/orders/resume", 202)
        await live.reaches("FAILED")
        other = {"stream": f"X_{live.stream}", "subject": f"X_{long}"}
        body = live.definition("two", sink=other, checkpoint={"collection": f"two_{unique}"})
        answer = (await live.call("POST", "/watchers", 422, json=body)).json()
        assert [each["field"] for each in answer["errors"]] == ["sink.subject"]
        await neighbour_is_well(live, cuts=1)


async def test_a_lower_max_payload_is_learnt_once(mongo_uri: str, make_nats: MakeNats, unique: str) -> None:
    server: NatsServer = await make_nats()
    async with Live(mongo_uri, server.url, unique) as live:
        await add_neighbour(live)
        await live.add()
        server.max_payload = 100_000
        await asyncio.to_thread(server.reload)
        await until(lambda: "Reloaded: max_payload" in server.log.read_text())
        for key in range(1, 6):
            live.orders.insert_one({"_id": key, "text": "x" * 300_000})
        await until(lambda: _count(live, 5), seconds=40)
        assert [message.body["documentKey"]["_id"] for message in await live.messages()] == [1, 2, 3, 4, 5]
        assert all("Changewire-Object" in message.headers for message in await live.messages())
        await neighbour_is_well(live, cuts=1)


@pytest.mark.parametrize("oversize", ["claim_check", "dead_letter"])
async def test_an_accounts_own_limit_which_no_server_tells_is_learnt_once(
    mongo_uri: str, make_nats: MakeNats, unique: str, tmp_path: Path, oversize: str
) -> None:
    operator = Operator()
    server: NatsServer = await make_nats(config=operator.config)
    files = {}
    for name, limits in {"service": {"payload": 65_536}, "test": {}}.items():
        files[name] = tmp_path / f"{name}.creds"
        files[name].write_text(operator.credentials(**limits))
    environ: dict[str, Any] = {"CHANGEWIRE_NATS_CREDS": str(files["service"])}
    async with Live(mongo_uri, server.url, unique, look_with=files["test"], **environ) as live:
        await add_neighbour(live)
        await live.add(sink={"oversize": oversize})
        for key in range(1, 6):
            live.orders.insert_one({"_id": key, "text": "x" * (100_000 if key % 2 else 50_000)})
        if oversize == "claim_check":
            await until(lambda: _count(live, 5), seconds=40)
            found = await live.messages()
            assert [message.body["documentKey"]["_id"] for message in found] == [1, 2, 3, 4, 5]
            assert ["Changewire-Object" in message.headers for message in found] == [True, False, True, False, True]
        else:
            await live.seen("2", "4")
            await until(lambda: _total(live, 3))
            assert [bson.decode(one.body)["documentKey"]["_id"] for one in await letters(live) if one.body] == []
        await neighbour_is_well(live, cuts=1)
        await live.restart()
        await live.reaches("RUNNING")


async def _total(live: Live, count: int) -> bool:
    return bool((await live.get(LETTERS))["total"] == count)


# A stream that holds less than a message


@pytest.mark.parametrize("discard", ["new", "old"])
async def test_a_message_larger_than_the_whole_stream_is_a_claim_check(live: Live, discard: str) -> None:
    await live.streams.create(live.stream, max_bytes=100_000, discard=discard)
    await live.add()
    live.orders.insert_one({"_id": 1, "text": "x" * 120_000})
    live.insert(2)
    await live.seen("1", "2")
