"""Streams and subjects that belong to NATS or to another watcher are refused before anything is made."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pymongo.errors import InvalidName, OperationFailure

from app.devservers.servers import MongoServer, NatsServer
from app.domain.names import database_problem
from tests.live import Live

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(mongo_server: MongoServer, nats_server: NatsServer) -> AsyncIterator[Live]:
    """A service with one watcher, `orders`, beside which others are asked for."""
    async with Live(mongo_server.uri, nats_server.url, "names") as live:
        await live.add()
        yield live


async def streams(live: Live) -> list[str]:
    return list((await live.streams.api("STREAM.NAMES")).get("streams") or ())


async def refusal(live: Live, status: int, sink: dict[str, Any]) -> dict[str, Any]:
    """The problem with which another watcher is refused, by each way to add one; it changes nothing."""
    before = await streams(live), live.stored()
    body = live.definition("other", source={"collection": "other"}, sink=sink)
    answers = [
        await live.call(method, path, status, json=body)
        for method, path in (("POST", "/watchers?dry_run=true"), ("POST", "/watchers"), ("PUT", "/watchers/other"))
    ]
    assert (await streams(live), live.stored()) == before
    assert len({answer.text for answer in answers}) == 1
    return dict(answers[0].json())


@pytest.mark.parametrize(
    "stream",
    ["OBJ_x", "KV_x", "OBJ_", "{operation}", "a{b", "a}b", "a.b", "a b", "a\tb", "a*", ">", "a/b", "a\\b",
     "s" * 252, "é" * 126, "_" * 130],
    ids=ascii,
)  # fmt: skip
async def test_a_streams_name_that_cannot_be_is_422(service: Live, stream: str) -> None:
    problem = await refusal(service, 422, {"stream": stream, "subject": "other.{operation}"})
    assert [each["field"] for each in problem["errors"]] == ["sink.stream"]


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.{operation}", "$SYS.{operation}", "$KV.x.{operation}", "$O.x.{operation}", "_INBOX.{operation}",
        "_R_.{operation}", "_GR_.x.{operation}", "x.$JS.{operation}", "x.$JS.API.{operation}", "x.$SYS.{operation}",
        "x.{operation}.$JS", "a b.{operation}", "a\u00a0b.{operation}", "x..{operation}", "{operation}.", "x.>",
        f"{'x' * 5000}.{{operation}}", f"{'x.' * 2000}{{operation}}", f"{'é' * 2000}.{{operation}}",
    ],
    ids=lambda subject: ascii(subject[:20]),
)  # fmt: skip
async def test_a_subject_that_is_natss_own_or_too_long_is_422(service: Live, subject: str) -> None:
    problem = await refusal(service, 422, {"stream": "OTHER", "subject": subject})
    assert [each["field"] for each in problem["errors"]] == ["sink.subject"]


@pytest.mark.parametrize("subject", ["{dlq}.a.b.{operation}", "{dlq}.{operation}", "{dlq}.a.b.c.{operation}"])
async def test_a_subject_of_another_watchers_dead_letters_is_409_whatever_it_does_with_large_ones(
    service: Live, subject: str
) -> None:
    sink = {"stream": "OTHER", "subject": subject.replace("{dlq}", f"{service.stream}-DLQ")}
    problem = await refusal(service, 409, sink)
    assert f"watcher orders keeps its dead letters (the stream {service.stream}-DLQ)" in problem["detail"]


async def test_a_subject_of_its_own_dead_letters_is_422(service: Live) -> None:
    for subject in ("OTHER-DLQ.a.b.{operation}", "OTHER-DLQ.{operation}", "{operation}.a.b.c"):
        problem = await refusal(service, 422, {"stream": "OTHER", "subject": subject})
        assert [each["field"] for each in problem["errors"]] == ["sink.subject"]


@pytest.mark.parametrize("character", ["c", "é", "_"])
async def test_a_namespace_has_up_to_255_bytes_and_a_longer_one_is_422(service: Live, character: str) -> None:
    """As MongoDB has it: database, dot and collection together, whatever the names of the stream and the place are."""
    database = "q1"
    longest = (character * 252)[: 252 // len(character.encode())]
    for length, exists in ((len(longest), True), (len(longest) + 1, False)):
        collection = service.mongo[database][character * length]
        if exists:
            collection.insert_one({"_id": 0})
            collection.delete_one({"_id": 0})
            continue
        with pytest.raises(OperationFailure):
            collection.insert_one({"_id": 0})
        body = {
            "name": "long",
            "source": {"database": database, "collection": collection.name},
            "sink": {"stream": "Q"},
        }
        problem = (await service.call("POST", "/watchers", 422, json=body)).json()
        assert [each["field"] for each in problem["errors"]] == ["source.collection"]
        assert "255 bytes" in problem["detail"]
    body = {"name": "long", "source": {"database": database, "collection": longest}}
    problem = (await service.call("POST", "/watchers", 422, json=body)).json()
    assert [each["field"] for each in problem["errors"]] == ["sink.stream"]
    assert "shorter" in problem["detail"]
    place = {"checkpoint": {"collection": ""}, "sink": {"stream": f"Q{service.unique}"}}
    problem = (await service.call("POST", "/watchers", 422, json=body | place)).json()
    assert [each["field"] for each in problem["errors"]] == ["checkpoint.collection"]
    sink = {"stream": f"Q{len(character.encode())}_{ord(character)}"}
    await service.call("POST", "/watchers", 201, json=body | {"sink": sink})
    await service.reaches("RUNNING", "long")
    service.mongo[database][longest].insert_one({"_id": 1})
    await service.seen("1", stream=sink["stream"])
    await service.call("DELETE", "/watchers/long?checkpoint=delete", 204)
    service.mongo.drop_database(database)


async def test_a_databases_name_has_up_to_63_bytes(service: Live) -> None:
    """What MongoDB takes is what a watcher may have, byte for byte and character for character."""
    for name in (
        "d" * 63,
        "é" * 31,
        "d" * 64,
        "é" * 32,
        "a b",
        "a/b",
        "a\\b",
        "a.b",
        'a"b',
        "a$b",
        "a-b",
        "a*b",
        "a|b",
        "a:b",
    ):
        try:
            service.mongo[name]["x"].find_one()
            taken = True
        except (InvalidName, OperationFailure):
            taken = False
        assert (database_problem(name) is None) == taken, name


async def test_the_longest_names_that_are_taken_work_to_the_end(service: Live) -> None:
    stream, subject = f"L{'x' * 240}", f"{'y.' * 800}names.{{operation}}"
    await service.add("long", source={"collection": "long"}, sink={"stream": stream, "subject": subject})
    service.mongo[service.database]["long"].insert_one({"_id": 1, "text": "x" * 2_000_000})  # a claim check
    found = (await service.seen("1", stream=stream))[0]
    assert found.headers["Changewire-Object"]
    await service.call("DELETE", "/watchers/long", 204)
