"""Changes that cannot be published: set aside once, in a stream beside the watcher's, and nothing else is held up.

Real servers throughout; what is asserted is what both streams hold in the end.
"""

import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import bson
import nats
import pytest
import pytest_asyncio
from bson.raw_bson import RawBSONDocument

from tests.conftest import MakeNats
from tests.letters import letters, spoil, spoilt, stored
from tests.live import Live, Streams, until
from tests.service import Service, Stage, Trap

BIG = "x" * 1_200_000
PATH = "/watchers/orders/dead-letters"


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def set_aside(live: Live, count: int) -> list[dict[str, Any]]:
    """Wait until so many letters are listed, and return them."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(await live.get(PATH))
        return bool(found["total"] >= count)

    await until(there)
    assert found["total"] == count
    listed: list[dict[str, Any]] = found["dead_letters"]
    return listed


# Setting aside


async def test_a_change_that_cannot_be_encoded_is_set_aside_and_the_others_keep_their_order(live: Live) -> None:
    await live.add(paused=True)
    documents: list[Any] = [{"_id": 1}, spoilt({"_id": 2}), {"_id": 3}, spoilt({"_id": 4}), {"_id": 5}]
    live.mongo[live.database].command({"insert": live.collection, "documents": documents})
    assert await live.streams.config(f"{live.stream}-DLQ") is None
    await live.resume()
    await live.seen("1", "3", "5")
    two, four = await letters(live)
    assert [two.key, four.key] == [2, 4]
    assert RawBSONDocument(two.body)["fullDocument"].raw == documents[1].raw
    token = RawBSONDocument(two.body)["_id"]["_data"]
    named = {name: value for name, value in two.headers.items() if name.startswith("Changewire-")}
    assert "cannot be read as BSON" in named.pop("Changewire-Error")
    assert named == {
        "Changewire-Watcher": "orders", "Changewire-Token": token, "Changewire-Operation": "insert",
        "Changewire-Reason": "not_encodable", "Changewire-Epoch": "0", "Changewire-Size": str(len(two.body)),
        "Changewire-Key": '{"_id":2}',
    }  # fmt: skip
    assert two.subject == f"{live.stream}-DLQ.orders.{token}.event"
    config = await live.streams.config(f"{live.stream}-DLQ")
    assert config is not None
    assert (config["discard"], config["discard_new_per_subject"], config["max_msgs_per_subject"]) == ("new", True, 1)
    status = await live.get("/watchers/orders/status")
    assert (status["state"], status["dead_letters"], status["events"]["skipped"]) == ("RUNNING", 2, 2)
    metrics = (await live.call("GET", "/metrics", 200)).text
    assert 'changewire_events_skipped_total{reason="not_encodable",watcher="orders"} 2.0' in metrics
    assert 'changewire_watcher_dead_letters{watcher="orders"} 2.0' in metrics
    await live.restart()
    await live.reaches("RUNNING")
    live.insert(6)
    await live.seen("1", "3", "5", "6")
    assert (await live.get("/watchers/orders/status"))["dead_letters"] == 2
    assert len(await letters(live)) == 2


async def test_the_position_moves_past_a_batch_of_nothing_but_dead_letters(live: Live) -> None:
    await live.add()
    spoil(live, 1, 2, 3)
    listed = await set_aside(live, 3)
    await until(lambda: live.checkpoint()[0]["value"] >= listed[-1]["token"])
    assert await live.messages() == []
    await live.restart()
    await live.reaches("RUNNING")
    live.insert(4)
    await live.seen("4")
    assert await set_aside(live, 3) == listed


async def test_a_rewind_over_a_dead_letter_does_not_double_it(live: Live) -> None:
    await live.add()
    start = (await live.get("/watchers/orders/token"))["token"]
    live.insert(1)
    spoil(live, 2)
    live.insert(3)
    await live.seen("1", "3")
    await live.pause()
    await live.call("PUT", "/watchers/orders/token", 200, json={"token": start})
    await live.resume()
    await live.seen("1", "3", "1", "3")
    await set_aside(live, 1)


async def test_an_operation_that_is_not_published_makes_no_dead_letter(live: Live) -> None:
    await live.add(sink={"operations": ["update", "delete"]})
    spoil(live, 1)
    live.orders.delete_one({"_id": 1})
    await live.seen("delete 1")
    assert await live.streams.config(f"{live.stream}-DLQ") is None


async def oversized_among_others(live: Live) -> dict[str, Any]:
    """Have one oversized change (2) among others set aside; its letter."""
    await live.add(sink={"oversize": "dead_letter"})
    live.insert(1)
    live.orders.insert_one({"_id": 2, "text": BIG})
    live.insert(3)
    await live.seen("1", "3")
    (letter,) = await set_aside(live, 1)
    return letter


async def test_an_oversized_change_is_set_aside_and_its_event_in_the_object_store(live: Live) -> None:
    letter = await oversized_among_others(live)
    assert (letter["reason"], letter["document_key"], letter["in_object_store"]) == ("oversize", {"_id": 2}, True)
    assert "max_payload" in letter["error"]
    (there,) = await letters(live)
    assert there.body == b""
    bucket, _, name = there.headers["Changewire-Object"].partition("/")
    raw = (await (await live.streams.client.jetstream().object_store(bucket)).get(name)).data or b""
    assert len(raw) == letter["bytes"]
    assert bson.decode(raw)["fullDocument"] == {"_id": 2, "text": BIG}
    whole = await live.get(f"{PATH}/{letter['sequence']}")
    assert (whole["object"], whole["bson"], whole["event"]) == (f"{bucket}/{name}", None, None)
    # As it is, it cannot be published either; as a claim check it can.
    said = await live.refused(409, "POST", f"{PATH}/{letter['sequence']}/replay")
    assert "max_payload" in said
    await set_aside(live, 1)
    await live.put(sink={"oversize": "claim_check"})
    answer = (await live.call("POST", f"{PATH}/{letter['sequence']}/replay", 200)).json()
    messages = await live.seen("1", "3", "2")
    assert messages[2].id == answer["message_id"]
    bucket, _, name = messages[2].headers["Changewire-Object"].partition("/")
    body = json.loads((await (await live.streams.client.jetstream().object_store(bucket)).get(name)).data or b"")
    assert body["fullDocument"]["text"] == BIG
    await set_aside(live, 0)
    assert await live.streams.api(f"STREAM.INFO.OBJ_{live.stream.replace('_', '__')}-DLQ")


# Where letters cannot be kept


async def test_a_dead_letter_stream_that_is_none_holds_the_watcher_up_and_says_why(live: Live) -> None:
    await live.streams.create(f"{live.stream}-DLQ", subjects=[f"{live.stream}-DLQ.*.*.*"])
    await live.add()
    live.insert(1)
    spoil(live, 2)
    live.insert(3)
    watcher = await live.reaches("RETRYING")
    assert "not made for dead letters" in watcher["status"]["reason"]
    await live.seen("1")
    await live.streams.api(f"STREAM.DELETE.{live.stream}-DLQ")
    await live.seen("1", "3")
    await set_aside(live, 1)


async def test_a_full_dead_letter_stream_holds_the_watcher_up_with_the_servers_words(live: Live) -> None:
    settings: dict[str, Any] = {"discard": "new", "discard_new_per_subject": True, "max_msgs_per_subject": 1}
    name = f"{live.stream}-DLQ"
    await live.streams.create(name, subjects=[f"{name}.*.*.*"], max_msgs=1, **settings)
    await live.add()
    spoil(live, 1, 2)
    live.insert(3)
    watcher = await live.reaches("RETRYING")
    assert "maximum messages exceeded" in watcher["status"]["reason"]
    assert await live.messages() == []
    config = await live.streams.config(name)
    await live.streams.api(f"STREAM.UPDATE.{name}", {**(config or {}), "max_msgs": -1})
    await live.seen("3")
    assert [letter["document_key"]["_id"] for letter in await set_aside(live, 2)] == [1, 2]


async def test_what_cannot_work_is_refused_when_the_watcher_is_added(live: Live) -> None:
    async def refused(**parts: Any) -> str:
        facts = await live.facts()
        body = live.definition(**parts)
        said = await live.refused(409, "POST", "/watchers?dry_run=true", json=body)
        assert await live.refused(409, "POST", "/watchers", json=body) == said
        assert await live.facts() == facts
        return said

    dead: dict[str, Any] = {"sink": {"oversize": "dead_letter"}}
    name = f"{live.stream}-DLQ"
    await live.streams.create(name, subjects=[f"{name}.*"])
    assert "does not take the subjects of dead letters" in await refused(**dead)
    await live.streams.api(f"STREAM.DELETE.{name}")
    other = f"OTHER_{live.unique}"
    await live.streams.create(other, subjects=[f"{name}.*.*.*"])
    assert other in await refused(**dead)
    await live.call("POST", "/watchers?dry_run=true", 200, json=live.definition())  # needs none
    await live.streams.api(f"STREAM.DELETE.{other}")
    await live.call("POST", "/watchers?dry_run=true", 200, json=live.definition(**dead))
    await live.add(**dead)
    # Another watcher that would publish to where this one keeps its letters.
    twin = {"source": {"collection": f"more_{live.unique}"}, "checkpoint": {"collection": f"more_{live.unique}"}}
    said = await live.refused(409, "POST", "/watchers", json=live.definition("twin", **twin, sink={"stream": name}))
    assert "dead letters" in said
    subject = f"{name}.a.b.{{operation}}"
    sink = {"stream": other, "subject": subject}
    said = await live.refused(409, "POST", "/watchers", json=live.definition("twin", **twin, sink=sink))
    assert "dead letters" in said
    # Its own subjects in the way, and names that leave no room.
    for sink in ({"subject": "{operation}.a.b.c"}, {"stream": "S" * 252}, {"stream": "_" * 150}):
        body = live.definition("twin", **twin, sink={"oversize": "dead_letter", **sink})
        answer = await live.call("POST", "/watchers?dry_run=true", 422, json=body)
        assert answer.json()["errors"][0]["field"] in ("sink.subject", "sink.stream")


# Over HTTP


async def test_dead_letters_are_listed_page_by_page_and_shown_one_by_one(live: Live) -> None:
    await live.add()
    assert await live.get(PATH) == {"total": 0, "dead_letters": [], "after": None}
    spoil(live, 1, 2, 3)
    listed = await set_aside(live, 3)
    page = await live.get(f"{PATH}?limit=2")
    assert (page["total"], page["dead_letters"], page["after"]) == (3, listed[:2], listed[1]["sequence"])
    page = await live.get(f"{PATH}?limit=2&after={page['after']}")
    assert (page["dead_letters"], page["after"]) == (listed[2:], None)
    one = await live.get(f"{PATH}/{listed[0]['sequence']}")
    raw = base64.b64decode(one.pop("bson"))
    assert (one.pop("object"), one.pop("event")) == (None, None)
    assert one == listed[0]
    assert raw == (await letters(live))[0].body
    for path in (f"{PATH}/999", "/watchers/nobody/dead-letters", "/watchers/nobody/dead-letters/1"):
        await live.refused(404, "GET", path)
    for path in (f"{PATH}?limit=0", f"{PATH}?limit=101", f"{PATH}?before=1", f"{PATH}/first", f"{PATH}/0"):
        await live.refused(422, "GET", path)
    await live.refused(404, "POST", f"{PATH}/999/replay")
    said = await live.refused(409, "POST", f"{PATH}/{listed[0]['sequence']}/replay")
    assert "still cannot be published" in said
    await live.call("DELETE", f"{PATH}/{listed[0]['sequence']}", 204)
    await live.refused(404, "DELETE", f"{PATH}/{listed[0]['sequence']}")
    assert await set_aside(live, 2) == listed[1:]
    await live.pause()
    said = await live.refused(409, "POST", f"{PATH}/{listed[1]['sequence']}/replay")
    assert "PAUSED" in said
    await live.call("DELETE", f"{PATH}/{listed[1]['sequence']}", 204)
    await set_aside(live, 1)


async def test_changing_dead_letters_needs_the_token(mongo_uri: str, nats_url: str, unique: str) -> None:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_API_TOKEN="secret-secret-secret") as live:
        await live.add()
        live.http.headers.pop("Authorization")
        await live.refused(401, "POST", f"{PATH}/1/replay")
        await live.refused(401, "DELETE", f"{PATH}/1")
        await live.get(PATH)


async def test_a_watcher_of_another_name_does_not_see_the_letters(live: Live) -> None:
    await live.add()
    spoil(live, 1)
    (letter,) = await set_aside(live, 1)
    source = {"collection": f"more_{live.unique}"}
    sink = {"stream": live.stream + "2"}
    await live.add("twin", source=source, sink=sink, checkpoint={"collection": f"more_{live.unique}"})
    assert (await live.get("/watchers/twin/dead-letters"))["total"] == 0
    await live.refused(404, "GET", f"/watchers/twin/dead-letters/{letter['sequence']}")


# Replay


async def oversized(live: Live) -> int:
    """Have one oversized change among others set aside, then let the watcher make claim checks; its sequence."""
    letter = await oversized_among_others(live)
    await live.put(sink={"oversize": "claim_check"})
    return int(letter["sequence"])


async def test_a_replay_comes_last_and_the_watcher_goes_on_where_it_was(live: Live) -> None:
    sequence = await oversized(live)
    answer = (await live.call("POST", f"{PATH}/{sequence}/replay", 200)).json()
    _, three, replayed = await live.seen("1", "3", "2")
    position, epoch, original = replayed.id.split(":", 2)
    assert position >= three.token > answer["token"]
    assert (epoch, original) == ("0", f"r:{answer['token']}")
    assert (replayed.token, replayed.sequence) == (answer["token"], answer["stream_sequence"])
    await set_aside(live, 0)
    await live.refused(404, "POST", f"{PATH}/{sequence}/replay")
    await live.restart()
    await live.reaches("RUNNING")
    live.insert(4)
    await live.seen("1", "3", "2", "4")
    # Where the checkpoint is lost, the stream alone tells: the position in the replay's id counts, not its change's.
    await live.call("POST", f"{PATH}/{sequence}/replay", 404)


async def test_reopened_by_the_replay_alone_the_watcher_publishes_nothing_again(live: Live) -> None:
    sequence = await oversized(live)
    await live.call("POST", f"{PATH}/{sequence}/replay", 200)
    await live.seen("1", "3", "2")
    await live.stop()
    live.positions.drop()
    await live.start()
    await live.reaches("RUNNING")
    live.insert(4)
    await live.seen("1", "3", "2", "4")
    await set_aside(live, 0)


async def test_what_a_rewound_watcher_has_published_in_its_place_is_not_replayed(live: Live) -> None:
    sequence = await oversized(live)
    await live.pause()
    first = (await live.messages())[0].token
    await live.call("PUT", "/watchers/orders/token", 200, json={"token": first})
    await live.resume()
    messages = await live.seen("1", "3", "2", "3")  # a claim check by now, at its own place
    assert messages[2].id.endswith(":1")
    said = await live.refused(409, "POST", f"{PATH}/{sequence}/replay")
    assert "in its place" in said
    await live.seen("1", "3", "2", "3")
    await set_aside(live, 1)


async def test_a_fenced_instance_says_that_another_one_replays(mongo_uri: str, nats_url: str, unique: str) -> None:
    async with (
        Live(mongo_uri, nats_url, unique, CHANGEWIRE_STATE_DB=f"state_{unique}_one") as one,
        Live(mongo_uri, nats_url, unique, CHANGEWIRE_STATE_DB=f"state_{unique}_two") as two,
    ):
        for rival in (one, two):
            await rival.add(checkpoint={"database": f"tokens_{unique}", "collection": "orders"})
        spoil(one, 1)
        (letter,) = await set_aside(one, 1)

        async def fenced() -> Live | None:
            one.orders.insert_one({})
            for live in (one, two):
                answer = await live.call("GET", "/watchers/orders")
                if answer.status_code == 200 and answer.json()["status"]["state"] == "FENCED":
                    return live
            return None

        said = await (await until(fenced, seconds=60)).refused(409, "POST", f"{PATH}/{letter['sequence']}/replay")
        assert "another instance" in said


# Killed in between


async def kept(stage: Stage, kind: str = "event") -> int:
    return len(await stored(Streams(await stage.nats()), stage.stream, kind))


@pytest.mark.parametrize("moment", ["before-letter", "after-letter"])
@pytest.mark.parametrize("nth", [1, 2])
async def test_killed_around_setting_a_change_aside(stage: Stage, moment: str, nth: int) -> None:
    service = await stage.service().start()
    await stage.add(service)
    await stage.write(20)
    await stage.until_length(20)
    service.kill()
    await stage.write(20, at_once=20)
    for key in ("a", "b"):
        await stage.mongo[stage.database].command({"insert": "things", "documents": [spoilt({"_id": key})]})
    await stage.write(20, at_once=20)
    service.trap = Trap(moment, nth)
    service.spawn()
    await service.trapped()
    assert await kept(stage) == nth - (moment == "before-letter")
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    await stage.check()
    assert await kept(stage) == 2


async def replayable(stage: Stage, service: Service) -> str:
    """Have one change set aside that can be published now; return the path of its replay."""
    await stage.add(service, oversize="dead_letter")
    await stage.write(20)
    await stage.collection.insert_one({"_id": "big", "n": -1, "text": BIG})
    await stage.write(20)
    await stage.until_length(40)
    await service.call("PUT", f"/watchers/{stage.watcher}", stage.described(oversize="claim_check"), status=200)
    await service.until_state(stage.watcher, "RUNNING")
    path = f"/watchers/{stage.watcher}/dead-letters"
    (letter,) = (await service.call("GET", path, status=200)).json()["dead_letters"]
    return f"{path}/{letter['sequence']}/replay"


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "there"),
    [("before-receipt", 0), ("after-receipt", 0), ("before-publish", 0), ("before-read-back", 1), ("after-publish", 1),
     ("before-removal", 1), ("after-removal", 1)],
)  # fmt: skip
async def test_killed_around_a_replay(stage: Stage, moment: str, there: int) -> None:
    service = await stage.service().start()
    path = await replayable(stage, service)
    assert await service.terminate() == 0
    service.trap = Trap(moment)
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    with pytest.raises(Exception, match=r"(?i)disconnected|read"):
        await service.call("POST", path)
    await service.trapped()
    assert await stage.held() == 40 + there
    assert await kept(stage) == (moment != "after-removal")
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    await service.call("POST", path, status=404 if moment == "after-removal" else 200)
    await stage.write(20)
    await stage.until_length(61)
    assert await service.terminate() == 0
    messages = await stage.messages()
    assert [index for index, message in enumerate(messages) if message.event["documentKey"]["_id"] == "big"] == [40]
    assert len(messages) == 61
    assert await kept(stage) == 0


async def test_a_change_with_a_long_key_has_a_subject_all_the_same(live: Live) -> None:
    await live.add(sink={"oversize": "dead_letter"})
    live.orders.insert_one({"_id": "k" * 3000, "text": BIG})
    live.insert(2)
    await live.seen("2")
    (letter,) = await set_aside(live, 1)
    assert len(letter["token"]) > 6000
    assert letter["document_key"] is None
    await live.put(sink={"oversize": "claim_check"})
    await live.call("POST", f"{PATH}/{letter['sequence']}/replay", 200)
    live.orders.insert_one({"_id": "j" * 3000, "text": BIG})
    for message in (await live.seen("2", "insert " + "k" * 3000, "insert " + "j" * 3000))[1:]:
        bucket, _, name = message.headers["Changewire-Object"].partition("/")
        body = json.loads((await (await live.streams.client.jetstream().object_store(bucket)).get(name)).data or b"")
        assert body["fullDocument"]["text"] == BIG


# A server that takes less than before


@pytest.mark.parametrize("window", [False, True], ids=["fast ingest", "window"])
async def test_a_batch_that_the_server_no_longer_takes_is_read_again_and_published(
    mongo_uri: str, make_nats: MakeNats, unique: str, window: bool
) -> None:
    server = await make_nats(max_payload=2_000_000)
    if window:
        server.config = "no_auth_user: u\nauthorization { users: [ { user: u, password: p, permissions: { publish: {"
        server.config += ' deny: ["$JS.API.STREAM.UPDATE.>"] } } } ] }'
        await server.restart()
    async with Live(mongo_uri, server.url, unique) as live:
        if window:
            await live.streams.create(live.stream)
        await live.add()
        live.orders.insert_one({"_id": 1, "text": BIG})
        assert "Changewire-Object" not in (await live.seen("1"))[0].headers
        configuration = server.data / "nats-server.conf"
        configuration.write_text(configuration.read_text().replace("max_payload: 2000000", "max_payload: 30000"))
        os.kill(server.pid, signal.SIGHUP)
        await until(lambda: "Reloaded server configuration" in server.log.read_text())
        live.orders.insert_many([{"_id": 2}, {"_id": 3, "text": BIG}, {"_id": 4}])
        live.streams.client = client = await nats.connect(server.url)
        messages = await live.seen("1", "2", "3", "4")
        assert "Changewire-Object" in messages[2].headers
        watcher = await live.reaches("RUNNING")
        assert watcher["status"]["restarts"] >= 1
        await client.close()


async def test_a_stream_that_takes_less_than_before_is_published_to_by_claim_check(live: Live) -> None:
    await live.add()
    live.insert(1)
    await live.seen("1")
    config = await live.streams.config(live.stream)
    await live.streams.api(f"STREAM.UPDATE.{live.stream}", {**(config or {}), "max_msg_size": 4000})
    live.orders.insert_many([{"_id": 2}, {"_id": 3, "text": "x" * 5000}, {"_id": 4}])
    messages = await live.seen("1", "2", "3", "4")
    assert "Changewire-Object" in messages[2].headers
