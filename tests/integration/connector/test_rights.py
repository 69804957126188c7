"""With the rights that mongodb-nats-connector was given, and with exactly those that the migration page names."""

from contextlib import AsyncExitStack
from pathlib import Path

from pymongo import MongoClient

from tests.conftest import MakeMongo, MakeNats
from tests.integration.connector.test_takeover import Connector, as_nats_go_asks, entry, write_config
from tests.letters import spoilt, stored
from tests.live import Live, until
from tests.nats_account import Account, changes, ids, make_watcher, opened
from tests.pages import blocks, mongosh

CONNECTORS = (
    'publish: {{ allow: ["{stream}.*", "$JS.API.STREAM.CREATE.*"{more}] }}, subscribe: {{ allow: ["_INBOX.>"] }}'
)


def accounts(permissions: str) -> str:
    """A configuration with a user who may do everything, and one with these permissions."""
    return f"""
    accounts {{ A {{ jetstream: enabled, users: [
        {{ user: root, password: toor }},
        {{ user: connector, password: secret, permissions: {{ {permissions} }} }}
    ] }} }}
    """


async def served(make_nats: MakeNats, permissions: str) -> tuple[str, str]:
    """The URLs under which either reaches a server of this test's own."""
    server = await make_nats(config=accounts(permissions))
    return f"nats://root:toor@127.0.0.1:{server.port}", f"nats://connector:secret@127.0.0.1:{server.port}"


async def test_without_the_right_to_read_a_message_it_says_which_to_grant(
    make_nats: MakeNats, mongo_uri: str, unique: str, tmp_path: Path
) -> None:
    stream = f"ORDERS_{unique}".upper()
    root, account = await served(make_nats, CONNECTORS.format(stream=stream, more=""))
    async with Live(mongo_uri, account, unique, look_at=(mongo_uri, root)) as live:
        await live.restart(write_config(tmp_path / "c.yaml", live, entry(live)))
        reason = (await live.reaches("FAILED", f"{live.database}.{live.collection}"))["status"]["reason"]
        assert f"$JS.API.STREAM.MSG.GET.{stream}" in reason
        assert "publish permissions" in reason


async def test_with_one_right_more_than_the_connector_has_it_takes_over_and_back(
    make_nats: MakeNats, mongo_uri: str, unique: str, tmp_path: Path
) -> None:
    stream = f"ORDERS_{unique}".upper()
    more = f', "$JS.API.STREAM.MSG.GET.{stream}"'
    root, account = await served(make_nats, CONNECTORS.format(stream=stream, more=more))
    async with Live(mongo_uri, account, unique, look_at=(mongo_uri, root)) as live:
        config = write_config(tmp_path / "c.yaml", live, entry(live))
        watcher, connector = f"{live.database}.{live.collection}", Connector(live)
        await live.stop()
        await connector.run(lambda: live.insert(1, 2), die_before_token=True)
        await live.start(config)
        await live.reaches("RUNNING", watcher)
        live.insert(*range(3, 40))
        expected = [str(number) for number in range(1, 40)]
        await live.seen(*expected)
        await live.stop()
        await connector.run(lambda: live.insert(40))
        await live.start(config)
        live.insert(41)
        await live.seen(*expected, "40", "41")
        # A stream that is gone is not made again behind anybody's back, though to ask for it is to make it.
        await live.stop()
        assert "error" not in await live.streams.api(f"STREAM.DELETE.{stream}")
        await live.start(config)
        failed = await live.reaches("RETRYING", watcher)
        assert "does not exist" in failed["status"]["reason"]
        assert await live.streams.config(stream) is None
        # One with other settings cannot be looked at without the right to.
        answer = await live.streams.api(f"STREAM.CREATE.{stream}", as_nats_go_asks(stream) | {"max_msgs": 1000})
        assert "error" not in answer
        failed = await live.reaches("FAILED", watcher)
        assert f"$JS.API.STREAM.INFO.{stream}" in failed["status"]["reason"]


async def test_the_rights_of_the_migration_page_are_enough_for_fast_ingest(make_nats: MakeNats, stream: str) -> None:
    """And without the right to change a stream, one that exists keeps its mode and says which right is missing."""
    update = f"$JS.API.STREAM.UPDATE.{stream}"
    root, account = await served(make_nats, rights(stream, without=update))
    watcher = make_watcher(stream)
    async with AsyncExitStack() as stack:
        theirs, ours = Account(root), Account(account)
        for each in (theirs, ours):
            stack.push_async_callback(each.close)
            await each.connection.ready(5)
        sink, fence = await opened(ours, watcher)
        assert (sink.mode, sink.slower) == ("fast_ingest", None)
        assert await sink.publish(changes(1, 40), fence) == 39
        assert await ours.ids(stream) == ids(1, 40)
        await theirs.api.update({**(await theirs.api.info(stream)).config, "allow_batched": False})
        sink, _ = await opened(ours, watcher)
        assert sink.slower is not None
        assert update in sink.slower


def rights(stream: str, without: str = "") -> str:
    """The permissions of the page on roles, for another stream, with the usual inbox, and without one of them."""
    text = next(block.text for block in blocks("docs/roles.md", language="nats") if "user: changewire," in block.text)
    permissions = text.partition("permissions: {")[2].partition("}}")[0]
    return permissions.replace("ORDERS", stream).replace("_INBOX_changewire", "_INBOX").replace(f'"{without}"', "")


async def test_the_rights_of_the_migration_page_are_enough_for_all(
    make_mongo: MakeMongo, make_nats: MakeNats, unique: str, tmp_path: Path
) -> None:
    database, state, stream = f"db_{unique}", f"state_{unique}", f"S{unique}".upper()
    mongo = await make_mongo(auth=("root", "toor"))
    written = {'"shop"': f'"{database}"', '{db: "changewire"': f'{{db: "{state}"'}
    scripts = [*blocks("docs/roles.md", language="js")[:-1], *blocks("docs/migration.md", language="js")]
    with MongoClient(mongo.uri) as client:
        for script in scripts:
            for place, command in mongosh(script.text, lambda text: replaced(text, written)):
                client[place].command(command)
    root, nats = await served(make_nats, rights(stream))
    uri = mongo.uri.replace("root:toor@", "changewire:secret@")
    async with Live(uri, nats, unique, look_at=(mongo.uri, root)) as live:
        live.orders.insert_one({"_id": "first"})
        file = entry(live, streamName=stream, changeStreamPreAndPostImages=True)
        watcher = f"{live.database}.{live.collection}"
        await live.restart(write_config(tmp_path / "c.yaml", live, file))
        await live.reaches("RUNNING", watcher)
        live.insert(1)
        live.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
        live.orders.insert_one({"_id": 2, "text": "x" * 2_000_000})
        live.orders.insert_one(spoilt({"_id": 3}))
        live.insert(4)
        found = await live.seen("1", "update 1", "2", "4", stream=stream)
        assert found[1].body["fullDocumentBeforeChange"] == {"_id": 1}
        assert "Changewire-Object" in found[2].headers
        assert len(await stored(live.streams, stream)) == 1
        await live.pause(watcher)
        await live.resume(watcher)
        assert (await live.get(f"/watchers/{watcher}/lag"))["oplog_headroom_seconds"] is not None
        health = await live.get("/healthz")
        assert "warnings" not in health["components"]["watchers"]
        async with Live(uri, nats, unique, look_at=(mongo.uri, root), CHANGEWIRE_INSTANCE="second") as second:
            await until(lambda: _answers_for(second, watcher))
            await second.call("PUT", f"/watchers/{watcher}/pause", 202)
            assert "nats_permission_denied" not in second.log.getvalue()
        assert "nats_permission_denied" not in live.log.getvalue()


def replaced(text: str, written: dict[str, str]) -> str:
    for page, real in written.items():
        text = text.replace(page, real)
    return text


async def _answers_for(live: Live, watcher: str) -> bool:
    """Whether it has asked the instance that runs the watcher."""
    status = (await live.call("GET", f"/watchers/{watcher}")).json().get("status", {})
    return status.get("instance") not in (None, "second") and status["as_of"] is None


async def test_without_the_rights_between_instances_the_answer_names_them(
    make_nats: MakeNats, mongo_uri: str, unique: str
) -> None:
    wide = 'publish: {allow: [">"], deny: ["changewire.>"]}, subscribe: {allow: ["_INBOX.>"]}'
    root, nats = await served(make_nats, wide)
    async with AsyncExitStack() as stack:

        async def instance(name: str) -> Live:
            live = Live(mongo_uri, nats, unique, look_at=(mongo_uri, root), CHANGEWIRE_INSTANCE=name)
            return await stack.enter_async_context(live)

        a = await instance("a")
        assert "nats_permission_denied" not in a.log.getvalue(), "one that is alone asks nobody"
        b = await instance("b")
        await a.call("POST", "/watchers", 201, json=a.definition())

        async def told() -> bool:
            answer = await b.call("PUT", "/watchers/orders/pause")
            return answer.status_code == 503 and "may not subscribe to changewire." in answer.json()["detail"]

        await until(told)
        assert (await b.get("/watchers/orders"))["status"]["as_of"] is not None
        a.insert(1)
        await a.seen("1")
