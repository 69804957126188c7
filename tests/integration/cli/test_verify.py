"""`changewire verify` against real servers: what the service published is right, and each fault forged is found."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from app.devservers.servers import MongoServer, NatsServer
from tests import oplog, zygote
from tests.letters import spoil
from tests.live import Live, Message, until

KINDS = ("lost", "doubled", "reordered", "altered", "unknown")


class Verified(zygote.Done):
    """What the command answered."""

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.output)
        return report

    @property
    def faults(self) -> dict[str, list[str]]:
        """The tokens found, by kind; kinds without any are left out."""
        found = {kind: [one["token"] for one in self.report[kind]["findings"]] for kind in KINDS}
        assert {kind: len(tokens) for kind, tokens in found.items()} == {
            kind: self.report[kind]["total"] for kind in KINDS
        }
        return {kind: tokens for kind, tokens in found.items() if tokens}


async def changewire(*arguments: str, environ: dict[str, str], cwd: Path) -> Verified:
    """Run the command line as a process of its own, where no .env and no connector.yaml of somebody else's is read."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
    done = await zygote.changewire(*arguments, cwd=cwd, env={**inherited, **environ})
    return Verified(done.code, done.output, done.errors)


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


class Verifier:
    """The command on this test's servers and state."""

    def __init__(self, service: Live, cwd: Path) -> None:
        self.environ = {name: service.environ[name] for name in ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")}
        self.cwd = cwd

    async def run(self, *arguments: str) -> Verified:
        return await changewire("verify", *arguments, environ=self.environ, cwd=self.cwd)

    async def finds(self, *arguments: str, **expected: list[str]) -> dict[str, Any]:
        """Run it and compare what it finds; returns the report. Nothing expected: it has to be content."""
        done = await self.run("orders", "--json", *arguments)
        assert done.output, done.errors
        assert done.faults == expected, done.output
        assert (done.code, done.report["ok"], done.errors) == ((1, False, "") if expected else (0, True, "")), done
        return done.report


@pytest.fixture
def verify(service: Live, tmp_path: Path) -> Verifier:
    return Verifier(service, tmp_path)


async def publish(service: Live, message: Message, *, id_: str | None = None, **changed: Any) -> None:
    """Put a message on the stream (again), as nobody should."""
    body = json.dumps({**message.body, **changed}).encode()
    headers = {"Nats-Msg-Id": id_ or message.id}
    answer = await service.streams.client.jetstream().publish(message.subject, body, headers=headers)
    assert not answer.duplicate


async def delete(service: Live, *sequences: int) -> None:
    for sequence in sequences:
        await service.streams.client.jetstream().delete_msg(service.stream, sequence)


async def forged(service: Live, *names: str, **parts: Any) -> list[Message]:
    """A stream whose duplicate window does not hinder a forger, with these inserts on it; nobody writes to it now."""
    await service.streams.create(service.stream, duplicate_window=100_000_000, allow_atomic=True, allow_direct=True)
    await service.add(**parts)
    service.insert(*names)
    messages = await service.seen(*names)
    await service.pause()
    return messages


# Nothing is wrong.


async def test_all_kinds_of_changes_once_and_in_order(service: Live, verify: Verifier) -> None:
    await service.add()
    service.insert(*range(10))
    service.orders.update_one({"_id": 1}, {"$set": {"n": 1}, "$unset": {"x": 1}})
    service.orders.replace_one({"_id": 2}, {"n": 2})
    service.orders.delete_one({"_id": 1})
    with service.mongo.start_session() as session, session.start_transaction():
        service.orders.insert_one({"_id": "a"}, session=session)
        service.orders.update_one({"_id": "a"}, {"$set": {"n": 3}}, session=session)
        service.orders.delete_one({"_id": "a"}, session=session)
    service.orders.update_one({"_id": 2}, [{"$set": {"list": [1, 2]}}])
    expected = [
        *map(str, range(10)),
        "update 1",
        "replace 2",
        "delete 1",
        "insert a",
        "update a",
        "delete a",
        "replace 2",
    ]
    await service.seen(*expected)
    report = await verify.finds()
    assert (report["compared"], report["messages"], report["waiting"], report["foreign"]) == (17, 17, 0, 0)
    assert (report["watcher"], report["stream"], report["epochs"]) == ("orders", service.stream, [0])
    assert report["not_compared"] == {}


async def test_every_type_that_mongodb_stores(service: Live, verify: Verifier) -> None:
    await service.add()
    values: list[Any] = [
        1, 1.0, -0.0, 1e300, float("nan"), float("-inf"), Int64(2**62), "text \0 ü \U0001f600", True, None, [], {},
        [{"a": [1, {"b": 2}]}], ObjectId(), Decimal128("1.20E+5"), DatetimeMS(0), DatetimeMS(120), DatetimeMS(1500),
        DatetimeMS(-1), DatetimeMS(253402300800000), Binary(b"\0\1"), Binary(b"\2" * 16, 4), Regex("^a", "ims"),
        Code("f()"), Code("f()", {"x": 1}), Timestamp(1, 2), MinKey(), MaxKey(), DBRef("other", 1), DBRef("o", 1, "db"),
    ]  # fmt: skip
    service.insert("0")
    for index, value in enumerate(values):
        service.orders.update_one({"_id": "0"}, {"$set": {f"f{index}": value}})
    service.orders.insert_one({"_id": "1", "all": values})
    service.orders.replace_one({"_id": "0"}, {"all": values})
    await service.seen("0", *["update 0"] * len(values), "1", "replace 0")
    assert (await verify.finds())["compared"] == len(values) + 3


async def test_a_rewind_is_no_fault(service: Live, verify: Verifier) -> None:
    await service.add()
    service.insert(1, 2, 3)
    found = await service.seen("1", "2", "3")
    await service.pause()
    await service.call("PUT", "/watchers/orders/token", 200, json={"token": found[0].token})
    service.insert(4)
    assert (await verify.finds())["waiting"] == 3
    await service.resume()
    service.insert(5)
    await service.seen("1", "2", "3", "2", "3", "4", "5")
    report = await verify.finds()
    assert (report["compared"], report["epochs"]) == (7, [0, 1])


async def test_a_move_past_changes_is_said_and_no_fault(service: Live, verify: Verifier) -> None:
    await service.add()
    service.insert(1)
    await service.seen("1")
    await service.pause()
    service.insert(2, 3)
    await service.call("PUT", "/watchers/orders/token", 200, json={"at": "latest"})
    await verify.finds()
    await service.resume()
    service.insert(4)
    await service.seen("1", "4")
    report = await verify.finds()
    assert [*report["not_compared"].values()] == [2]


async def test_what_a_paused_watcher_has_not_come_to_is_waiting(service: Live, verify: Verifier) -> None:
    await service.add()
    service.insert(1, 2)
    await service.seen("1", "2")
    await service.pause()
    service.insert(3, 4, 5)
    report = await verify.finds()
    assert (report["compared"], report["waiting"]) == (2, 3)


async def test_a_drop_and_what_comes_after_it(service: Live, verify: Verifier) -> None:
    await service.add(sink={"operations": ["insert", "drop", "invalidate"]})
    service.insert(1)
    await service.seen("1")
    service.orders.drop()
    service.insert(2)
    service.orders.update_one({"_id": 2}, {"$set": {"n": 1}})
    await service.seen("1", "drop None", "invalidate None", "2")
    assert (await verify.finds())["compared"] == 4


async def test_a_pipeline_that_chooses_and_one_that_reshapes(service: Live, verify: Verifier) -> None:
    pipeline = [{"$match": {"fullDocument.keep": True}}, {"$set": {"total": {"$add": ["$fullDocument.n", 1]}}}]
    await service.add(source={"pipeline": pipeline})
    service.orders.insert_many([{"_id": 1, "keep": True, "n": 1}, {"_id": 2, "n": 2}, {"_id": 3, "keep": True, "n": 3}])
    await service.seen("1", "3")
    service.orders.update_one({"_id": 1}, {"$set": {"n": 5}})
    await service.seen("1", "3", "update 1")
    service.orders.update_one({"_id": 1}, {"$set": {"keep": False}})
    service.insert("end")
    service.orders.insert_one({"_id": 4, "keep": True, "n": 1})
    await service.seen("1", "3", "update 1", "4")
    report = await verify.finds()
    assert report["compared"] == 3
    assert [*report["not_compared"].values()] == [1]  # the update, which the pipeline would not choose today


async def test_a_body_in_the_object_store(service: Live, verify: Verifier) -> None:
    await service.add()
    service.orders.insert_one({"_id": 1, "text": "x" * 2_000_000})
    service.insert(2)
    (pointer, _) = await service.seen("1", "2")
    assert "Changewire-Object" in pointer.headers
    assert (await verify.finds())["compared"] == 2
    bucket, _, name = pointer.headers["Changewire-Object"].partition("/")
    await (await service.streams.client.jetstream().object_store(bucket)).delete(name)
    await verify.finds(altered=[pointer.token])


# Something is wrong.


async def test_a_lost_message_is_found(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c", "d")
    await delete(service, messages[1].sequence)
    report = await verify.finds(lost=[messages[1].token])
    assert report["compared"] == 3
    said = (await verify.run("orders")).output
    assert messages[1].token in said
    assert 'insert {"_id": "b"}, after #1' in said
    assert said.endswith("WRONG: 1 lost\n")


@pytest.mark.parametrize("place", [{}, {"capped": True, "size_in_bytes": 100_000}], ids=["plain", "capped"])
async def test_lost_at_the_end_before_the_watchers_position(
    service: Live, verify: Verifier, place: dict[str, Any]
) -> None:
    messages = await forged(service, "a", "b", "c", checkpoint=place)
    await delete(service, messages[2].sequence)
    await verify.finds(lost=[messages[2].token])


async def test_a_position_that_is_not_this_streams_proves_nothing(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c")
    await delete(service, messages[2].sequence)
    for changed, said in (
        ({"sequence": 99}, "lost its end: #99 was acknowledged"),
        ({"stream": "OTHER"}, "belongs to"),
    ):
        service.positions.update_one({"_id": "orders"}, {"$set": changed})
        report = await verify.finds()
        assert said in report["notes"][0]
        assert report["waiting"] == 1


async def test_what_is_missing_before_the_first_message_counts_since_a_given_time(
    service: Live, verify: Verifier
) -> None:
    now = service.mongo.admin.command("hello")["operationTime"].time
    service.insert("a")
    await service.add()
    service.insert("b")
    await service.seen("b")
    await verify.finds()
    since = datetime.fromtimestamp(now, UTC).isoformat()
    done = await verify.run("orders", "--since", since, "--json")
    assert (done.code, [*done.faults]) == (1, ["lost"])
    assert done.report["lost"]["findings"][0]["what"] == 'insert {"_id": "a"}, before #1'


async def test_a_doubled_message_is_found(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c")
    await publish(service, messages[1], id_=f"{messages[1].token}:0")
    await verify.finds(doubled=[messages[1].token])
    await publish(service, messages[0], id_=f"{messages[0].token}:7")  # no epoch that there has been
    await verify.finds(doubled=[messages[1].token, messages[0].token])


async def test_two_messages_in_the_wrong_order_are_found(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c", "d")
    await delete(service, *(message.sequence for message in messages[1:]))
    for index, suffix in ((2, ":00"), (1, ":0"), (3, ":0")):
        await publish(service, messages[index], id_=messages[index].token + suffix)
    report = await verify.finds(reordered=[messages[1].token])
    assert report["compared"] == 3


async def test_a_changed_body_and_a_wrong_subject_are_found(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c", "d")
    await delete(service, *(message.sequence for message in messages[1:]))
    await publish(service, messages[1], id_=f"{messages[1].token}:0", fullDocument={"_id": "b", "more": True})
    elsewhere = Message(0, f"{service.stream}.delete", messages[2].headers, messages[2].body)
    await publish(service, elsewhere, id_=f"{messages[2].token}:0")
    await service.streams.client.jetstream().publish(
        messages[3].subject, b"no JSON", headers={"Nats-Msg-Id": f"{messages[3].token}:0"}
    )
    report = await verify.finds(altered=[message.token for message in messages[1:]])
    said = [finding["what"] for finding in report["altered"]["findings"]]
    assert said[0] == 'insert {"_id": "b"}: differs in fullDocument.more'
    assert said[1].endswith(f"is on the subject {service.stream}.delete, not {service.stream}.insert")
    assert said[2].endswith("is not a JSON object")


async def test_a_change_that_never_was_is_found(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b")
    token = f"{messages[1].token[:-2]}FF"
    await publish(service, messages[1], id_=token, _id={"_data": token})
    await verify.finds(unknown=[token])


async def test_messages_of_others_are_counted_and_no_fault(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b")
    await service.streams.client.jetstream().publish(f"{service.stream}.insert", b"hello")
    await publish(service, messages[0], id_=f"{messages[0].token}:0", ns={"db": "other", "coll": "others"})
    assert (await verify.finds())["foreign"] == 2


# What nobody can compare any more.


async def test_what_the_stream_no_longer_holds_is_not_compared(service: Live, verify: Verifier) -> None:
    messages = await forged(service, "a", "b", "c")
    await service.streams.client.jetstream().purge_stream(service.stream, seq=messages[1].sequence)
    report = await verify.finds()
    assert report["compared"] == 2
    assert report["notes"] == ["the stream begins at #2: what it held before cannot be compared"]
    await verify.finds("--since", "2026-01-01T00:00:00Z")
    await service.streams.client.jetstream().purge_stream(service.stream)
    assert (await verify.finds())["compared"] == 0


async def test_a_stream_that_keeps_the_last_message_of_a_subject_only(service: Live, verify: Verifier) -> None:
    await service.streams.create(service.stream, max_msgs_per_subject=1, allow_direct=True)
    await service.add()
    service.insert(1)
    service.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    service.insert(2, 3)
    service.orders.delete_one({"_id": 1})

    async def only_three() -> bool:
        return [message.short for message in await service.messages()] == ["update 1", "insert 3", "delete 1"]

    await until(only_three)
    report = await verify.finds()
    assert (report["compared"], [*report["not_compared"].values()]) == (3, [1])


async def test_what_the_oplog_no_longer_holds_is_not_compared(
    make_mongo: Callable[..., Awaitable[MongoServer]], nats_url: str, unique: str, tmp_path: Path
) -> None:
    mongo = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    async with Live(mongo.uri, nats_url, unique) as service:
        verify = Verifier(service, tmp_path)
        await service.add()
        service.insert("old")
        (old,) = await service.seen("old")
        filler = service.mongo["filler"]["filler"]

        def moved_on() -> bool:
            filler.insert_many([{"text": "x" * 1_000_000} for _ in range(4)])
            return bool(oplog.first(service.mongo).time > old.body["clusterTime"]["$timestamp"]["t"])

        await until(moved_on, seconds=60)
        service.insert("new")
        await service.seen("old", "new")
        report = await verify.finds()
        assert (report["compared"], [*report["not_compared"].values()]) == (1, [1])


@pytest.mark.parametrize("wish", ["latest", "earliest"])
async def test_a_gap_that_the_stream_marks_is_said_and_what_lies_in_it_is_not_lost(
    make_mongo: Callable[..., Awaitable[MongoServer]], nats_url: str, unique: str, tmp_path: Path, wish: str
) -> None:
    mongo = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    async with Live(mongo.uri, nats_url, unique) as service:
        verify = Verifier(service, tmp_path)
        await service.add(on_history_lost=wish)
        service.insert("before")
        await service.seen("before")
        await service.pause()
        service.insert("lost")
        await asyncio.to_thread(oplog.outgrow, mongo.uri)
        service.insert("left")
        await service.resume()
        expected = ["before", "gap None", *(["left"] if wish == "earliest" else []), "after"]
        await service.seen(*expected[:-1])
        service.insert("after")
        messages = await service.seen(*expected)
        report = await verify.finds()
        assert (report["compared"], report["foreign"]) == (len(expected) - 2, 0)
        (note,) = report["notes"]
        assert note.startswith("#2 is a gap (history_lost): changes after ")
        in_the_gap = report["not_compared"].get("changes lie in a gap that the stream marks", 0)
        assert in_the_gap == (1 if wish == "latest" else 0)
        await delete(service, messages[-1].sequence)
        await service.pause()
        await verify.finds(lost=[messages[-1].token])


async def test_a_gap_of_a_stream_made_anew_is_said(service: Live, verify: Verifier) -> None:
    await service.add(on_history_lost="latest")
    service.insert(1)
    await service.seen("1")
    await service.stop()
    await service.streams.api(f"STREAM.DELETE.{service.stream}")
    await service.streams.create(service.stream)
    service.insert(2)
    await service.start()
    await service.seen("gap None")
    service.insert(3)
    await service.seen("gap None", "3")
    await service.pause()
    for since in ((), ("--since", "2026-01-01T00:00:00Z")):
        report = await verify.finds(*since)
        assert report["compared"] == 1
        assert report["notes"][0].startswith("#1 is a gap (stream_recreated): changes before ")
        assert report["not_compared"] == ({"changes lie in a gap that the stream marks": 2} if since else {})


async def test_a_stream_that_was_made_anew_is_said(service: Live, verify: Verifier) -> None:
    await forged(service, "a")
    await service.streams.api(f"STREAM.DELETE.{service.stream}")
    await service.streams.create(service.stream)
    report = await verify.finds()
    assert report["notes"] == ["the stream was deleted and recreated after the position was stored"]


# Against a list of writes.


async def test_a_list_of_writes(service: Live, verify: Verifier, tmp_path: Path) -> None:
    messages = await forged(service, "a", "b")
    writes = tmp_path / "writes.jsonl"
    lines = [{"operation": "insert", "id": "a"}, {"operation": "insert", "id": "b", "fields": {"_id": "b"}}]
    writes.write_text("\n".join(map(json.dumps, lines)))
    assert (await verify.finds("--writes", str(writes)))["compared"] == 2
    writes.write_text("\n".join(map(json.dumps, [*lines, {"operation": "insert", "id": "c"}])))
    report = (await verify.run("orders", "--json", "--writes", str(writes))).report
    assert [one["what"] for one in report["lost"]["findings"]] == ['line 3: insert "c"']
    writes.write_text("\n".join(map(json.dumps, lines)))
    await publish(service, messages[0], id_=f"{messages[0].token}:0")
    await verify.finds("--writes", str(writes), doubled=[messages[0].token])
    writes.write_text("no JSON")
    assert (await verify.run("orders", "--writes", str(writes))).code == 2


# What keeps it from comparing.


async def test_an_absent_watcher_and_an_absent_stream_are_named(service: Live, verify: Verifier) -> None:
    done = await verify.run("orders")
    assert (done.code, done.output) == (1, "")
    assert done.errors == f"changewire: there is no watcher orders in the database {service.state_db}; there are none\n"
    await service.add(paused=True)
    done = await verify.run("others")
    assert (done.code, done.errors.endswith("; watchers: orders\n")) == (1, True)
    await service.streams.api(f"STREAM.DELETE.{service.stream}")
    done = await verify.run("orders")
    assert (done.code, done.errors) == (
        1, f"changewire: there is no stream {service.stream}: the watcher has published nothing yet\n",
    )  # fmt: skip


async def test_a_stream_whose_messages_are_consumed_is_refused(service: Live, verify: Verifier) -> None:
    await service.streams.create(service.stream, retention="workqueue", allow_direct=True)
    await service.add()
    done = await verify.run("orders")
    assert (done.code, "retention workqueue" in done.errors) == (1, True)


@pytest.mark.long
@pytest.mark.parametrize("server", ["MONGO_URI", "NATS_URL"])
async def test_an_absent_server_is_one_line_without_secrets(service: Live, verify: Verifier, server: str) -> None:
    await service.add()
    scheme = {"MONGO_URI": "mongodb", "NATS_URL": "nats"}[server]
    verify.environ[server] = f"{scheme}://user:geheim@127.0.0.1:1"
    done = await verify.run("orders")
    assert (done.code, done.output, len(done.errors.splitlines())) == (1, "", 1)
    assert "cannot be reached: " in done.errors
    assert "Errno" not in done.errors
    assert "geheim" not in done.errors


async def test_wrong_arguments_and_settings_are_misuse(service: Live, verify: Verifier) -> None:
    await service.add()
    for arguments in ((), ("orders", "--since", "yesterday"), ("orders", "--since", "2100-01-01T00:00:00Z")):
        done = await verify.run(*arguments)
        assert (done.code, done.output, len(done.errors.splitlines())) == (2, "", 1), done
    verify.environ["MONGO_URI"] = "nonsense"
    assert (await verify.run("orders")).code == 2


async def test_nats_that_wants_credentials(
    mongo_uri: str, make_nats: Callable[..., Awaitable[NatsServer]], unique: str, tmp_path: Path
) -> None:
    nats = await make_nats(config="authorization { user: changewire, password: geheim }")
    asked: dict[str, Any] = {"CHANGEWIRE_NATS_USER": "changewire", "CHANGEWIRE_NATS_PASSWORD": "geheim"}
    look_at = (mongo_uri, nats.url.replace("://", "://changewire:geheim@"))
    async with Live(mongo_uri, nats.url, unique, look_at=look_at, **asked) as service:
        verify = Verifier(service, tmp_path)
        await service.add()
        service.insert(1)
        await service.seen("1")
        done = await verify.run("orders")
        assert (done.code, "geheim" in done.errors + done.output) == (1, False)
        verify.environ |= asked
        assert (await verify.finds())["compared"] == 1


async def test_dead_letters_are_no_loss_and_a_replay_is_in_its_own_place(service: Live, verify: Verifier) -> None:
    await service.add(sink={"oversize": "dead_letter"})
    start = now(service)
    service.insert(1)
    spoil(service, "spoilt")
    service.orders.insert_one({"_id": 2, "text": "x" * 1_200_000})
    service.insert(3)
    _, three = await service.seen("1", "3")
    report = await verify.finds("--since", start)
    assert report["compared"] == 2
    assert report["not_compared"] == {"changes are dead letters": 2}
    await service.put(sink={"oversize": "claim_check"})
    letters = (await service.get("/watchers/orders/dead-letters"))["dead_letters"]
    oversize = next(letter for letter in letters if letter["reason"] == "oversize")
    await service.call("POST", f"/watchers/orders/dead-letters/{oversize['sequence']}/replay", 200)
    replayed = (await service.seen("1", "3", "2"))[2]
    service.insert(4)
    await service.seen("1", "3", "2", "4")
    report = await verify.finds("--since", start)
    assert (report["compared"], report["foreign"]) == (4, 0)
    assert report["not_compared"] == {"changes are dead letters": 1}
    (note,) = report["notes"]
    assert note.startswith("#3 is the replay of a dead letter: insert")
    # Once more, though nobody has asked; and lost, where the letter goes without a replay.
    await publish(service, replayed, id_=f"{three.token}:0:r:{replayed.token}")
    await service.pause()
    await verify.finds("--since", start, doubled=[replayed.token])
    (spoilt_letter,) = (await service.get("/watchers/orders/dead-letters"))["dead_letters"]
    await service.call("DELETE", f"/watchers/orders/dead-letters/{spoilt_letter['sequence']}", 204)
    await verify.finds("--since", start, doubled=[replayed.token], lost=[spoilt_letter["token"]])


async def test_dead_letters_with_long_ids_are_told_by_what_stands_for_their_tokens(
    service: Live, verify: Verifier
) -> None:
    await service.add(sink={"oversize": "dead_letter"})
    start = now(service)
    service.insert(1, "y" * 33_000)
    service.orders.insert_one({"_id": "z" * 6_000, "text": "x" * 1_200_000})
    service.insert(2)
    await service.seen("1", "2")
    report = await verify.finds("--since", start)
    assert (report["compared"], report["not_compared"]) == (2, {"changes are dead letters": 2})
    await service.put(sink={"oversize": "claim_check"})
    _, letter = (await service.get("/watchers/orders/dead-letters"))["dead_letters"]
    await service.call("POST", f"/watchers/orders/dead-letters/{letter['sequence']}/replay", 200)
    report = await verify.finds("--since", start)
    assert (report["compared"], report["foreign"]) == (3, 0)
    assert report["not_compared"] == {"changes are dead letters": 1}


async def test_a_reduced_change_is_compared_without_what_it_lacks(service: Live, verify: Verifier) -> None:
    await service.add(source={"pre_and_post_images": True})
    service.orders.insert_one({"_id": 1, "text": "x" * 9_000_000})
    service.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    await service.seen("1", "update 1")
    assert (await verify.finds())["compared"] == 2


def now(service: Live) -> str:
    """A moment before whatever happens next."""
    hello: Any = service.mongo.admin.command("hello")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(hello["operationTime"].time))
