"""Taking over from the Go connector and going back to it: its file, its token collections, its streams, its shapes.

`Connector` does what that program does, with pymongo and nats-py: watch, publish with the token as message id, wait
for the acknowledgement, insert the token, next event.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp, json_util
from pymongo import DESCENDING, MongoClient

from app.__main__ import main
from app.pipeline import checkpointer
from tests.conftest import MakeMongo
from tests.live import Live, until
from tests.service import Service

PUBLISHED = ("insert", "update", "replace", "delete")


class Connector:
    """The Go connector, one collection of it."""

    def __init__(self, live: Live, *, capped: bool = False) -> None:
        self.live = live
        self.capped = capped
        self.tokens = live.mongo["resume-tokens"][live.collection]

    async def start(self) -> None:
        """What it does once: make what is missing."""
        live = self.live
        if live.collection not in live.mongo[live.database].list_collection_names():
            live.mongo[live.database].create_collection(live.collection, changeStreamPreAndPostImages={"enabled": True})
        if live.collection not in live.mongo["resume-tokens"].list_collection_names():
            options: dict[str, Any] = {"capped": True, "size": 4096} if self.capped else {}
            live.mongo["resume-tokens"].create_collection(live.collection, **options)
        answer = await live.streams.api(f"STREAM.CREATE.{live.stream}", as_nats_go_asks(live.stream))
        assert "error" not in answer, f"the connector ends here: {answer['error']}"

    def newest(self) -> str | None:
        order = "$natural" if self.capped else "_id"
        found = self.tokens.find_one(sort=[(order, DESCENDING)])
        return None if found is None else str(found["value"])

    async def run(self, *writes: Any, die_before_token: bool = False) -> list[dict[str, Any]]:
        """Start, let the writes be made, publish all there is, and stop; return the bodies published.

        `die_before_token`: killed between the last publish and the insert of its token."""
        await self.start()
        newest = self.newest()
        after = {} if newest is None else {"resume_after": {"_data": newest}}
        bodies = []
        with self.live.orders.watch(
            full_document="updateLookup", full_document_before_change="whenAvailable", max_await_time_ms=100, **after
        ) as changes:
            for write in writes:
                write()
            quiet = 0
            while quiet < 3:  # writes return once they are majority-committed, hence readable
                event = changes.try_next()
                if event is None:
                    quiet += 1
                    continue
                quiet = 0
                if event["operationType"] not in PUBLISHED:
                    continue
                body = json_util.dumps(event, json_options=json_util.RELAXED_JSON_OPTIONS)
                body = re.sub(r'(:\d\d\.\d*?)0+Z"', r'\1Z"', body)  # as Go writes fractions of a second
                body = body.replace('.Z"', 'Z"')
                ack = await self.live.streams.client.jetstream().publish(
                    f"{self.live.stream}.{event['operationType']}",
                    body.encode(),
                    headers={"Nats-Msg-Id": event["_id"]["_data"]},
                )
                assert not ack.duplicate, "the connector would have published this twice after two minutes"
                self.last = event["_id"]["_data"]
                bodies.append(json.loads(body))
                self.tokens.insert_one({"_id": ObjectId(), "value": self.last})
        if die_before_token:
            self.tokens.delete_one({"value": self.last})
        return bodies


def as_nats_go_asks(stream: str) -> dict[str, Any]:
    """The request of `AddStream` with what the connector sets: name, subjects and storage; the rest is nats.go's."""
    return {
        "name": stream, "subjects": [f"{stream}.*"], "retention": "limits", "max_consumers": 0, "max_msgs": 0,
        "max_bytes": 0, "discard": "old", "max_age": 0, "max_msgs_per_subject": 0, "storage": "file",
        "num_replicas": 0, "deny_delete": False, "deny_purge": False, "allow_rollup_hdrs": False,
        "allow_direct": False, "mirror_direct": False, "consumer_limits": {},
    }  # fmt: skip


def write_config(path: Path, live: Live, *collections: dict[str, Any], mongo: str = "", nats: str = "") -> Path:
    """The connector's file; JSON is YAML."""
    connector: dict[str, Any] = {"log": {"level": "info"}, "collections": list(collections)}
    if mongo:
        connector |= {"mongo": {"uri": mongo}, "nats": {"url": nats}, "server": {"addr": "127.0.0.1:0"}}
    path.write_text(json.dumps({"connector": connector}))
    return path


def entry(live: Live, **more: Any) -> dict[str, Any]:
    return {"dbName": live.database, "collName": live.collection, **more}


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    """The service without a file; a test gives it one by `live.restart(config)`."""
    async with Live(mongo_uri, nats_url, unique) as service:
        yield service


@pytest.mark.parametrize("capped", [False, True])
async def test_to_and_fro_between_the_connector_and_the_service_each_change_comes_once(
    live: Live, tmp_path: Path, capped: bool
) -> None:
    options = {"tokensCollCapped": True, "tokensCollSizeInBytes": 4096} if capped else {}
    config = write_config(tmp_path / "connector.yaml", live, entry(live, **options))
    watcher = f"{live.database}.{live.collection}"
    connector = Connector(live, capped=capped)
    await live.stop()
    await connector.run(lambda: live.insert(1, 2, 3))
    expected = ["1", "2", "3"]
    for stay in range(2):
        live.insert(f"away {stay}")  # while neither runs
        await live.start(config)
        await live.reaches("RUNNING", watcher)
        live.insert(f"here {stay}")
        live.orders.update_one({"_id": 1}, {"$set": {"stay": stay}})
        expected += [f"insert away {stay}", f"insert here {stay}", "update 1"]
        await live.seen(*expected)
        await live.stop()
        live.insert(f"gone {stay}")
        await connector.run(lambda: live.insert("back"), lambda: live.orders.delete_one({"_id": "back"}))
        expected += [f"insert gone {stay}", "insert back", "delete back"]
        await live.seen(*expected)
    found = await live.seen(*expected)
    assert all(message.id == message.token for message in found)
    assert len({message.id for message in found}) == len(found)


async def test_going_on_from_a_connector_that_died_between_publish_and_token_doubles_nothing(
    live: Live, tmp_path: Path
) -> None:
    connector = Connector(live)
    await live.stop()
    await connector.run(lambda: live.insert(1, 2, 3), die_before_token=True)
    await live.start(write_config(tmp_path / "c.yaml", live, entry(live)))
    live.insert(4)
    await live.seen("1", "2", "3", "4")


async def test_each_of_a_few_changes_has_its_token_stored_at_once(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for timer in ("BUSY_SECONDS", "PROMPT_SECONDS"):
        monkeypatch.setattr(checkpointer, timer, 3600.0)  # what waits for it never comes
    await live.restart(write_config(tmp_path / "c.yaml", live, entry(live)))
    await live.reaches("RUNNING", f"{live.database}.{live.collection}")
    connector = Connector(live)
    for number in range(20):
        live.insert(number)
        published = (await live.seen(*map(str, range(number + 1))))[-1].token
        await until(lambda: connector.newest() == published)  # noqa: B023 - called within the round


async def test_killed_once_its_token_is_stored_it_leaves_nothing_to_the_connector_to_double(
    live: Live, tmp_path: Path
) -> None:
    await live.stop()
    write_config(tmp_path / "connector.yaml", live, entry(live))
    connector, service = Connector(live), Service("killed", tmp_path, os.environ | live.environ)
    expected: list[str] = []
    try:
        for stay in range(3):
            await service.start()
            await until(lambda: connector.newest() is not None)
            live.insert(f"here {stay}")
            expected.append(f"insert here {stay}")
            published = (await live.seen(*expected))[-1].token
            await until(lambda: connector.newest() == published)  # noqa: B023 - called within the round
            service.kill()
            await connector.run(lambda: live.insert(f"there {stay}"))  # noqa: B023
            expected.append(f"insert there {stay}")
            await live.seen(*expected)
    finally:
        await service.close()


async def test_thousands_of_tokens_are_read_from_the_newest_and_continued_in_place(live: Live, tmp_path: Path) -> None:
    connector = Connector(live)
    await live.stop()
    await connector.run(lambda: live.insert(*range(5)))
    newest = connector.newest()
    # Older than all of them by _id, as years of running leave behind.
    connector.tokens.insert_many(
        {"_id": ObjectId(f"{number:024x}"), "value": f"82{number:016X}"} for number in range(1, 5001)
    )
    assert connector.newest() == newest
    await live.start(write_config(tmp_path / "c.yaml", live, entry(live)))
    live.insert(5, 6)
    found = await live.seen(*map(str, range(7)))
    await live.stop()
    assert connector.tokens.count_documents({}) == 5005
    assert connector.newest() is not None
    assert str(connector.newest()) >= found[-1].token


async def test_bodies_equal_what_the_connector_publishes(live: Live) -> None:
    oid, moment = ObjectId("0123456789abcdef01234567"), datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    document = {
        "_id": oid, "text": "größe \u2028 \"q\"", "int": 1, "long": Int64(2**60), "double": 1.5, "whole": 3.0,
        "nan": float("nan"), "inf": float("-inf"), "yes": True, "none": None, "at": moment,
        "old": datetime(1900, 1, 1, tzinfo=UTC), "binary": Binary(b"\x00\xff", 5), "decimal": Decimal128("1.10"),
        "regex": Regex("^a", "im"), "stamp": Timestamp(5, 6), "list": [1, {"deep": [oid]}], "empty": {},
    }  # fmt: skip
    connector = Connector(live)
    await connector.start()
    await live.add("mine", sink={"stream": f"{live.stream}_MINE"}, checkpoint={"collection": f"mine_{live.unique}"})
    expected: list[Any] = []

    async def as_many_there() -> bool:
        return len(await live.messages(f"{live.stream}_MINE")) == len(expected)

    for write in (
        lambda: live.orders.insert_one(document),
        lambda: live.orders.update_one({"_id": oid}, {"$set": {"text": "b"}, "$unset": {"int": 1}}),
        lambda: live.orders.replace_one({"_id": oid}, {"c": 1}),
        lambda: live.orders.delete_one({"_id": oid}),
    ):
        expected += await connector.run(write)
        await until(as_many_there)  # each looks up the document of an update for itself, before the next write
    mine = await live.messages(f"{live.stream}_MINE")
    theirs = await live.messages()
    assert [one.body for one in mine] == expected
    assert [one.headers for one in theirs] == [{"Nats-Msg-Id": one.token} for one in mine]
    assert [one.subject.rpartition(".")[2] for one in mine] == [one.subject.rpartition(".")[2] for one in theirs]


async def test_its_file_and_variables_make_streams_collections_and_token_collections_as_it_does(
    live: Live, mongo_uri: str, nats_url: str, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path / "connector.yaml",
        live,
        entry(
            live,
            changeStreamPreAndPostImages=True,
            tokensDbName=f"tokens_{live.unique}",
            tokensCollName="positions",
            tokensCollCapped=True,
            tokensCollSizeInBytes=8192,
            streamName=f"MINE_{live.unique}",
        ),
        mongo=mongo_uri,
        nats=nats_url,
    )
    await live.stop()
    for name in ("MONGO_URI", "NATS_URL", "SERVER_ADDR", "LOG_LEVEL"):
        del live.environ[name]
    await live.start(CONFIG_FILE=str(config))
    watcher = f"{live.database}.{live.collection}"
    await live.reaches("RUNNING", watcher)
    live.insert(1)
    live.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
    found = await live.seen("1", "update 1", stream=f"MINE_{live.unique}")
    assert found[1].body["fullDocumentBeforeChange"] == {"_id": 1}
    (options,) = live.mongo[live.database].list_collections(filter={"name": live.collection})
    assert options["options"]["changeStreamPreAndPostImages"] == {"enabled": True}
    (options,) = live.mongo[f"tokens_{live.unique}"].list_collections()
    assert (options["name"], options["options"]["capped"], options["options"]["size"]) == ("positions", True, 8192)
    stream = await live.streams.config(f"MINE_{live.unique}")
    assert stream is not None
    assert (stream["subjects"], stream["storage"]) == ([f"MINE_{live.unique}.*"], "file")
    health = await live.get("/healthz")
    assert health["status"] == "UP"
    assert health["components"]["mongo"] == health["components"]["nats"] == {"status": "UP"}
    measured = ("connector_change_event_processing_duration_seconds_count", "nats_message_duration_seconds_count")

    async def all_measured() -> bool:  # once the change is acknowledged
        lines = (await live.call("GET", "/metrics", 200)).text.splitlines()
        subject = f'subject="MINE_{live.unique}.insert"'
        return all(any(line.startswith(name) and subject in line for line in lines) for name in measured)

    await until(all_measured)
    await live.restart()  # what is there by now is no failure of a command
    await live.reaches("RUNNING", watcher)
    live.insert(2)
    await live.seen("1", "update 1", "2", stream=f"MINE_{live.unique}")
    await until(lambda: live.mongo[f"tokens_{live.unique}"]["positions"].count_documents({}) > 1)
    metrics = (await live.call("GET", "/metrics", 200)).text
    created = [line for line in metrics.splitlines() if 'command="create"' in line and "_total" in line]
    assert any(line.startswith("mongodb_commands_succeeded_total") for line in created), created
    assert not any(line.startswith("mongodb_commands_failed_total") for line in created), created


async def test_the_environment_wins_over_the_file(live: Live, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "c.yaml", live, entry(live), mongo="mongodb://127.0.0.1:1/", nats="nats://127.0.0.1:1"
    )
    await live.restart(config)
    live.insert(1)
    await live.reaches("RUNNING", f"{live.database}.{live.collection}")


async def test_what_is_written_before_the_first_event_of_a_restarted_service_is_not_lost(
    live: Live, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "c.yaml", live, entry(live))
    await live.restart(config)
    await live.reaches("RUNNING", f"{live.database}.{live.collection}")
    await live.stop()
    live.insert(1)
    await live.start(config)
    await live.seen("1")


async def test_a_watcher_of_the_file_can_be_paused_and_moved_but_not_replaced_or_removed(
    live: Live, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "c.yaml", live, entry(live))
    name = f"{live.database}.{live.collection}"
    await live.restart(config)
    await live.reaches("RUNNING", name)
    live.insert(1)
    (first,) = await live.seen("1")
    stored = live.stored()
    for method in ("PUT", "DELETE"):
        options = {"json": live.definition(name)} if method == "PUT" else {}
        detail = await live.refused(409, method, f"/watchers/{name}", **options)
        assert "configuration file" in detail
        assert "restart" in detail
    assert live.stored() == stored
    await live.pause(name)
    live.insert(2)
    await live.restart(config)
    await live.reaches("PAUSED", name)
    await live.call("PUT", f"/watchers/{name}/token", 200, json={"token": first.token})
    await live.resume(name)
    found = await live.seen("1", "2")
    assert found[1].id == f"{found[1].token}:1"


async def test_a_watcher_that_left_the_file_is_gone_after_a_restart_and_others_stay(live: Live, tmp_path: Path) -> None:
    other = f"other_{live.unique}"
    both = write_config(tmp_path / "both.yaml", live, entry(live), entry(live, collName=other))
    one = write_config(tmp_path / "one.yaml", live, entry(live, collName=other))
    await live.add(
        "http", source={"collection": f"http_{live.unique}"}, checkpoint={"collection": f"http_{live.unique}"}
    )
    await live.restart(both)
    names = [f"{live.database}.{each}" for each in (live.collection, other)]
    assert [each["name"] for each in await live.get("/watchers")] == [*names, "http"]
    await live.restart(one)
    assert [each["name"] for each in await live.get("/watchers")] == [names[1], "http"]
    await live.reaches("RUNNING", names[1])
    await live.reaches("RUNNING", "http")


async def test_a_stream_keeps_the_settings_of_the_connector_unless_a_setting_asks_for_more(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", live, entry(live))
    watcher, request = f"{live.database}.{live.collection}", as_nats_go_asks(live.stream)

    async def connector_starts() -> bool:
        answer = await live.streams.api(f"STREAM.CREATE.{live.stream}", request)
        assert answer.get("error", {}).get("err_code") in (None, 10058), answer
        return "error" not in answer

    async def switch(to: str, code: int = 0) -> str:
        assert await asyncio.to_thread(main, ["streams", "switch", live.stream, "--to", to]) == code
        return "".join(capsys.readouterr())

    await live.restart(config)
    assert (await live.reaches("RUNNING", watcher))["status"]["publish_mode"] == "window"
    live.insert(*range(40))
    await live.seen(*map(str, range(40)))
    assert await connector_starts()
    await live.restart(config, CHANGEWIRE_CONNECTOR_STREAMS="changewire")
    assert (await live.reaches("RUNNING", watcher))["status"]["publish_mode"] == "fast_ingest"
    assert not await connector_starts()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", live.environ["NATS_URL"])
    await live.stop()
    assert "allow_atomic off, allow_batched off, allow_direct off" in await switch("connector")
    assert await connector_starts()
    assert "already" in await switch("connector")
    await live.start(config, CHANGEWIRE_CONNECTOR_STREAMS="connector")
    live.insert(*range(40, 80))
    await live.seen(*map(str, range(80)))
    # Switched there and back while it runs: it goes on by what the stream offers.
    assert "allow_atomic on, allow_batched on" in await switch("changewire")
    await live.call("POST", f"/watchers/{watcher}/restart", 202)
    assert (await live.reaches("RUNNING", watcher))["status"]["publish_mode"] == "fast_ingest"
    await switch("connector")
    live.insert(*range(80, 120))
    await live.seen(*map(str, range(120)))
    assert await connector_starts()
    answer = await live.streams.api(f"STREAM.UPDATE.{live.stream}", request | {"max_msgs": 1000, "allow_direct": True})
    assert "error" not in answer
    assert "max_msgs is 1000, not -1" in await switch("connector", code=1)
    assert "does not exist" in (await refused_switch(f"NO_{live.stream}", capsys))


async def refused_switch(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert await asyncio.to_thread(main, ["streams", "switch", name, "--to", "connector"]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("removed", ["before it comes", "between two runs"])
async def test_with_the_stream_purged_and_the_tokens_dropped_it_begins_at_the_present_with_plain_ids(
    live: Live, tmp_path: Path, removed: str
) -> None:
    config = write_config(tmp_path / "c.yaml", live, entry(live))
    watcher, connector = f"{live.database}.{live.collection}", Connector(live)
    await live.stop()
    if removed == "before it comes":
        await connector.run(lambda: live.insert(0, 1))
    else:
        await live.start(config)
        await live.reaches("RUNNING", watcher)
        live.insert(0, 1)
        await live.seen("0", "1")
        await live.stop()
    assert "error" not in await live.streams.api(f"STREAM.PURGE.{live.stream}")
    connector.tokens.drop()
    await live.start(config)
    await live.reaches("RUNNING", watcher)
    live.insert(2, 3)
    found = await live.seen("2", "3")
    assert [message.id for message in found] == [message.token for message in found]
    await live.stop()
    await connector.run(lambda: live.insert(4))
    await live.seen("2", "3", "4")


async def test_with_the_rights_of_the_connector_the_watchers_of_the_file_run_and_changes_say_what_is_missing(
    make_mongo: MakeMongo, nats_url: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await make_mongo(auth=("root", "toor"))
    names = (f"db_{unique}", "resume-tokens")
    with MongoClient(server.uri) as client:
        client.admin.command(
            "createUser", "connector", pwd="secret", roles=[{"role": "readWrite", "db": name} for name in names]
        )
    uri = server.uri.replace("root:toor@", "connector:secret@")
    looked_at = (server.uri, nats_url)
    async with Live(uri, nats_url, unique, look_at=looked_at, ready=False, CHANGEWIRE_RECONCILE_SECONDS="0.2") as live:
        config = write_config(tmp_path / "c.yaml", live, entry(live, changeStreamPreAndPostImages=True))
        watcher = f"{live.database}.{live.collection}"
        await live.restart(config)
        await live.reaches("RUNNING", watcher)
        live.insert(1)
        live.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
        await live.seen("1", "update 1")
        health = await live.get("/healthz")
        assert health["status"] == "UP"
        (warning,) = health["components"]["watchers"]["warnings"]
        assert f"readWrite on {live.state_db}" in warning
        assert (await live.call("GET", "/readyz", 200)).status_code == 200
        for method, path in (
            ("POST", "/watchers"), ("PUT", f"/watchers/{watcher}/pause"), ("DELETE", f"/watchers/{watcher}")
        ):  # fmt: skip
            options = {"json": live.definition()} if method == "POST" else {}
            assert f"readWrite on {live.state_db}" in await live.refused(503, method, path, **options)
        await live.stop()
        live.insert(2)
        await live.start(config)
        await live.seen("1", "update 1", "2")
        for name in ("MONGO_URI", "NATS_URL"):
            monkeypatch.setenv(name, live.environ[name])
        monkeypatch.setenv("CONFIG_FILE", str(config))
        assert await asyncio.to_thread(main, ["verify", watcher]) == 0, "the file has the watcher"
        # With the right granted the registry is used at once.
        live.mongo.admin.command("grantRolesToUser", "connector", roles=[{"role": "readWrite", "db": live.state_db}])

        async def well() -> bool:
            return "warnings" not in (await live.get("/healthz"))["components"]["watchers"]

        async def pausable() -> bool:  # 503 until the file's watcher is stored, a moment after the registry is there
            return (await live.call("PUT", f"/watchers/{watcher}/pause")).status_code == 202

        await until(well)
        await live.reaches("RUNNING", watcher)
        await until(pausable)
        await live.reaches("PAUSED", watcher)
        live.insert(3)
        await live.resume(watcher)
        await live.seen("1", "update 1", "2", "3")
        assert [each["_id"] for each in live.stored()] == [watcher]


async def test_one_collection_on_two_streams_is_published_to_both_from_where_the_connector_was(
    live: Live, tmp_path: Path
) -> None:
    other = f"{live.stream}_2"
    config = write_config(tmp_path / "c.yaml", live, entry(live), entry(live, streamName=other))
    first = f"{live.database}.{live.collection}"
    await live.stop()
    await Connector(live).run(lambda: live.insert(1))  # and to the other stream, of which nothing is left:
    assert "error" not in await live.streams.api(f"STREAM.CREATE.{other}", as_nats_go_asks(other))
    live.insert(2)
    await live.start(config)
    for name in (first, f"{first}@{other}"):
        await live.reaches("RUNNING", name)
    live.insert(3)
    await live.seen("1", "2", "3")
    await live.seen("2", "3", stream=other)
    live.insert(4)
    await live.restart(config)
    await live.seen("1", "2", "3", "4")
    await live.seen("2", "3", "4", stream=other)
    await live.stop()
    assert (await Connector(live).run(lambda: live.insert(5)))[0]["documentKey"] == {"_id": 5}
