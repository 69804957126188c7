"""`changewire doctor` on real servers, well and badly set up: what is wrong is named, with what to do, and never a
secret."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest
import structlog
from bson.timestamp import Timestamp

from app.__main__ import main
from app.devservers.servers import Launch, MongoServer, NatsServer, free_port
from app.domain.watcher import StoredWatcher, from_document
from app.mongodb.deployment import MongoDeployment
from tests import oplog
from tests.credentials import self_signed
from tests.live import Streams

MakeMongo = Callable[..., Awaitable[MongoServer]]
MakeNats = Callable[..., Awaitable[NatsServer]]
SECRET = "hunter2hunter2"
NATS_211 = os.environ.get("CHANGEWIRE_TEST_NATS_211")


class Doctor:
    """The command with settings of its own; `rows` are the findings of the last look by (about, check)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}

    async def run(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """The exit code and all that was printed."""
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        self._capfd.readouterr()
        code = await asyncio.to_thread(main, ["doctor", *arguments])
        said, errors = self._capfd.readouterr()
        assert SECRET not in said + errors
        assert "Traceback" not in errors
        return code, said or errors

    async def look(self, **environ: str) -> int:
        code, said = await self.run("--json", **environ)
        report = json.loads(said)
        self.rows = {(each["about"], each["check"]): each for each in report["findings"]}
        assert len(self.rows) == len(report["findings"])
        assert (report["result"] == "problem") == (code == 1)
        for each in report["findings"]:
            assert each["level"] == "ok" or each["advice"], f"nothing to do about {each}"
        return code

    def wrong(self) -> dict[tuple[str, str], str]:
        """What is not ok."""
        return {key: each["level"] for key, each in self.rows.items() if each["level"] != "ok"}


@pytest.fixture
def doctor(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, unique: str
) -> Iterator[Doctor]:
    monkeypatch.chdir(tmp_path)  # no .env and no connector.yaml of somebody else's
    for name in [each for each in os.environ if each.startswith("CHANGEWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHANGEWIRE_STATE_DB", f"state_{unique}")
    root, level, configured = logging.getLogger(), logging.getLogger().level, structlog.get_config()
    handlers = root.handlers[:]
    yield Doctor(monkeypatch, capfd)
    structlog.configure(**configured)
    root.handlers[:] = handlers
    root.setLevel(level)


def definition(unique: str, **parts: Any) -> dict[str, Any]:
    return {
        "name": "orders",
        "source": {"database": f"db_{unique}", "collection": "orders", **parts.pop("source", {})},
        "sink": {"stream": f"S_{unique}".upper(), **parts.pop("sink", {})},
        "checkpoint": {"database": f"tokens_{unique}", "collection": "orders"},
        **parts,
    }


async def register(uri: str, unique: str, **parts: Any) -> None:
    mongo = MongoDeployment(uri, state_database=f"state_{unique}")
    await mongo.watchers().insert(StoredWatcher(from_document(definition(unique, **parts))))
    mongo.close()


async def test_a_good_set_up_is_ok_and_the_table_says_so(
    doctor: Doctor, mongo_uri: str, nats_url: str, unique: str, nats: Streams
) -> None:
    await register(mongo_uri, unique, source={"pre_and_post_images": True})
    streams = (await nats.api("STREAM.NAMES")).get("total")
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=nats_url) == 0
    assert doctor.wrong() == {}
    checked = {check for _, check in doctor.rows}
    assert checked >= {
        "reachable", "version", "replica set", "account", "registry", "oplog window", "change streams", "JetStream",
        "publish modes",
        "max_payload", "change stream", "pre-images", "history", "stream",
    }  # fmt: skip
    assert (await nats.api("STREAM.NAMES")).get("total") == streams, "the trial left a stream behind"
    with pymongo.MongoClient(mongo_uri) as client:
        assert not {f"db_{unique}", f"tokens_{unique}"} & set(client.list_database_names())
    code, table = await doctor.run()
    assert code == 0
    assert "0 problems, 0 warnings" in table
    assert all(each["found"] in table for each in doctor.rows.values() if each["check"] != "oplog window")


async def test_names_that_would_give_the_terminal_orders_are_shown_escaped(
    doctor: Doctor, mongo_uri: str, nats_url: str, unique: str
) -> None:
    await register(mongo_uri, unique, source={"collection": "orders\x1b[2J\u202e\x9b31m"})
    for arguments in ((), ("--json",)):
        _, said = await doctor.run(*arguments, MONGO_URI=mongo_uri, NATS_URL=nats_url)
        assert "orders\\u001b[2J\\u202e\\u009b31m" in said.replace("\n", "").replace("\\\\", "\\")
        assert not {"\x1b", "\x9b", "\u202e"} & set(said)


async def test_an_expired_certificate_is_a_problem_and_one_that_soon_will_be_a_warning(
    doctor: Doctor, mongo_uri: str, nats_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for name, days in (("server", -1), ("client", 20)):
        for kind, text in zip(("cert", "key"), self_signed(now - timedelta(30), now + timedelta(days)), strict=True):
            (tmp_path / f"{name}-{kind}.pem").write_text(text)
    servers = {"MONGO_URI": mongo_uri, "NATS_URL": nats_url}
    pairs = {"CHANGEWIRE_TLS": "server", "CHANGEWIRE_NATS_TLS": "client"}
    files = {f"{at}_{kind.upper()}": f"{name}-{kind}.pem" for at, name in pairs.items() for kind in ("cert", "key")}
    assert await doctor.look(**servers, **files) == 1
    expired, soon = (doctor.rows["settings", f"{at}_CERT"] for at in pairs)
    assert (expired["level"], soon["level"]) == ("problem", "warning")
    assert f"expired on {now - timedelta(1):%Y-%m-%d}" in expired["found"]
    assert f"valid until {now + timedelta(20):%Y-%m-%d}" in soon["found"]


@pytest.fixture
async def nats(nats_url: str) -> Any:
    import nats as vendor

    client = await vendor.connect(nats_url)
    yield Streams(client)
    await client.close()


@pytest.mark.parametrize("query", ["", "?replicaSet=prod", "?directConnection=true&replicaSet=prod"])
async def test_a_standalone_mongod_is_a_problem_with_the_way_out(
    doctor: Doctor, make_mongo: MakeMongo, nats_url: str, query: str
) -> None:
    server = await make_mongo(replica_set=None)
    assert await doctor.look(MONGO_URI=server.uri + query, NATS_URL=nats_url) == 1
    row = doctor.rows["MongoDB", "replica set"]
    assert row["level"] == "problem"
    assert "standalone server" in row["found"]
    assert f"--replSet {'prod' if query else 'rs0'} and run rs.initiate()" in row["advice"]
    assert ("MongoDB", "reachable") not in doctor.rows, "it is reachable: hosts and firewalls are fine"
    assert doctor.rows["NATS", "reachable"]["level"] == "ok", "one server's trouble hides the other"


async def test_a_replica_set_of_another_name_is_a_problem_with_its_name(
    doctor: Doctor, mongo_server: MongoServer, nats_url: str
) -> None:
    uri = f"mongodb://127.0.0.1:{mongo_server.port}/?replicaSet=prod"
    assert await doctor.look(MONGO_URI=uri, NATS_URL=nats_url) == 1
    row = doctor.rows["MongoDB", "replica set"]
    assert "replica set rs0" in row["found"]
    assert "replicaSet=rs0" in row["advice"]


async def test_a_pool_that_is_smaller_than_the_watchers_need_is_a_warning_with_the_number(
    doctor: Doctor, mongo_uri: str, nats_url: str, unique: str
) -> None:
    await register(mongo_uri, unique)
    assert await doctor.look(MONGO_URI=f"{mongo_uri}&maxPoolSize=2", NATS_URL=nats_url) == 0
    assert doctor.wrong() == {("MongoDB", "connections"): "warning"}
    assert "maxPoolSize=2" in doctor.rows["MongoDB", "connections"]["found"]
    assert "11 or more" in doctor.rows["MongoDB", "connections"]["advice"]
    assert await doctor.look(MONGO_URI=f"{mongo_uri}&maxPoolSize=11", NATS_URL=nats_url) == 0
    assert doctor.wrong() == {}


async def test_an_address_on_which_strangers_may_read_is_a_warning(
    doctor: Doctor, mongo_uri: str, nats_url: str
) -> None:
    closed = {"CHANGEWIRE_READS_NEED_TOKEN": "true", "CHANGEWIRE_API_TOKEN": SECRET * 2}
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=nats_url, SERVER_ADDR=":8080") == 0
    assert doctor.wrong() == {("settings", "reads"): "warning", ("settings", "token"): "warning"}
    assert "CHANGEWIRE_READS_NEED_TOKEN" in doctor.rows["settings", "reads"]["advice"]
    assert await doctor.look(**closed) == 0
    assert doctor.wrong() == {}


async def test_accounts_of_mongodb_that_are_refused_or_may_too_little(
    doctor: Doctor, make_mongo: MakeMongo, nats_url: str, unique: str, tmp_path: Path
) -> None:
    server = await make_mongo(auth=("root", "root"))
    with pymongo.MongoClient(server.uri) as client:
        client.admin.command("createUser", "poor", pwd=SECRET, roles=[{"role": "read", "db": "shop"}])
        roles = [{"role": "readWrite", "db": name} for name in (f"state_{unique}", "resume-tokens")]
        roles += [{"role": "read", "db": name} for name in ("shop", "local")]
        client.admin.command("createUser", "right", pwd=SECRET, roles=roles)
    (tmp_path / "connector.yaml").write_text(
        "connector:\n  collections:\n"
        "    - {dbName: shop, collName: orders, streamName: ORDERS_U}\n"
        "    - {dbName: other, collName: users, streamName: USERS_U}\n".replace("_U", f"_{unique.upper()}")
    )

    def uri(user: str, password: str = SECRET) -> str:
        return server.uri.replace("root:root", f"{user}:{password}")

    assert await doctor.look(MONGO_URI=uri("right", SECRET + "x"), NATS_URL=nats_url) == 1
    assert doctor.wrong() == {("MongoDB", "account"): "problem", ("watchers", "registry"): "warning"}

    assert await doctor.look(MONGO_URI=server.uri.replace("root:root@", "")) == 1
    assert "names no user" in doctor.rows["MongoDB", "account"]["found"]

    assert await doctor.look(MONGO_URI=uri("poor")) == 1
    assert doctor.wrong() == {
        ("MongoDB", "registry"): "warning",
        ("MongoDB", "oplog window"): "warning",
        ("shop.orders", "checkpoint"): "problem",
        ("other.users", "change stream"): "problem",
        ("other.users", "checkpoint"): "problem",
    }
    assert f"readWrite on state_{unique}" in doctor.rows["MongoDB", "registry"]["advice"]
    assert "readWrite on resume-tokens" in doctor.rows["shop.orders", "checkpoint"]["advice"]

    assert await doctor.look(MONGO_URI=uri("right")) == 1
    assert doctor.wrong() == {("other.users", "change stream"): "problem"}
    assert "changeStream on other.users" in doctor.rows["other.users", "change stream"]["advice"]


@pytest.mark.parametrize("kept", ["alone", "with the others"])
async def test_a_position_that_the_oplog_has_left_behind_is_a_problem(
    doctor: Doctor, make_mongo: MakeMongo, nats_url: str, unique: str, kept: str
) -> None:
    server = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    await register(server.uri, unique, **({} if kept == "alone" else {"checkpoint": None}))
    with pymongo.MongoClient(server.uri) as client:
        with client[f"db_{unique}"]["orders"].watch() as changes:
            changes.try_next()
            token = (changes.resume_token or {})["_data"]
        if kept == "alone":
            client[f"tokens_{unique}"]["orders"].insert_one({"value": token})
        else:
            place = {"clusterTime": Timestamp(1, 1), "epoch": 0, "sequence": None, "streamCreated": None}
            client[f"state_{unique}"]["checkpoints"].insert_one({"_id": "orders", "value": token, **place})
    await asyncio.to_thread(oplog.outgrow, server.uri)
    assert await doctor.look(MONGO_URI=server.uri, NATS_URL=nats_url) == 1
    assert doctor.wrong() == {("MongoDB", "oplog window"): "warning", ("orders", "history"): "problem"}
    assert "replSetResizeOplog" in doctor.rows["MongoDB", "oplog window"]["advice"]
    assert "no longer reaches back" in doctor.rows["orders", "history"]["found"]
    assert "watchers rewind orders" in doctor.rows["orders", "history"]["advice"]


async def test_an_account_that_may_not_write_where_all_positions_are_kept_is_a_problem(
    doctor: Doctor, make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    server = await make_mongo(auth=("root", "root"))
    await register(server.uri, unique, checkpoint=None)
    roles = [{"role": "read", "db": name} for name in (f"db_{unique}", f"state_{unique}", "local")]
    with pymongo.MongoClient(server.uri) as client:
        client.admin.command("createUser", "reader", pwd=SECRET, roles=roles)
    assert await doctor.look(MONGO_URI=server.uri.replace("root:root", f"reader:{SECRET}"), NATS_URL=nats_url) == 1
    said = doctor.rows["orders", "checkpoint"]
    assert said["level"] == "problem"
    assert f"on state_{unique}.checkpoints" in said["found"]
    assert f"readWrite on state_{unique}" in said["advice"]


async def test_images_that_the_account_may_not_switch_on_are_a_problem(
    doctor: Doctor, make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    server = await make_mongo(auth=("root", "root"))
    await register(server.uri, unique, source={"pre_and_post_images": True})
    with pymongo.MongoClient(server.uri) as client:
        client[f"db_{unique}"].create_collection("orders")
        roles = [{"role": "readWrite", "db": name} for name in (f"state_{unique}", f"tokens_{unique}")]
        roles += [{"role": "read", "db": name} for name in (f"db_{unique}", "local")]
        client.admin.command("createUser", "reader", pwd=SECRET, roles=roles)
        environ = {"MONGO_URI": server.uri.replace("root:root", f"reader:{SECRET}"), "NATS_URL": nats_url}
        assert await doctor.look(**environ) == 1
        assert doctor.wrong() == {("orders", "pre-images"): "problem"}
        assert "collMod" in doctor.rows["orders", "pre-images"]["advice"]
        client[f"db_{unique}"].command("collMod", "orders", changeStreamPreAndPostImages={"enabled": True})
        assert await doctor.look(**environ) == 0


async def test_nats_without_jetstream_and_with_wrong_credentials(
    doctor: Doctor, mongo_uri: str, make_nats: MakeNats, unique: str
) -> None:
    await register(mongo_uri, unique)
    bare = await make_nats(jetstream=False)
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=bare.url) == 1
    assert doctor.wrong() == {("NATS", "JetStream"): "problem", ("orders", "stream"): "warning"}
    assert "-js" in doctor.rows["NATS", "JetStream"]["advice"]

    guarded = await make_nats(config='authorization { user: "me", password: "right" }')
    with_password = guarded.url.replace("://", f"://me:{SECRET}@")
    assert await doctor.look(NATS_URL=with_password) == 1
    assert doctor.wrong() == {("NATS", "reachable"): "problem", ("orders", "stream"): "warning"}
    assert "refuses the credentials" in doctor.rows["NATS", "reachable"]["found"]
    assert "CHANGEWIRE_NATS_USER" in doctor.rows["NATS", "reachable"]["advice"]


@pytest.mark.skipif(NATS_211 is None, reason="CHANGEWIRE_TEST_NATS_211 does not name a nats-server of 2.11")
async def test_nats_2_11_works_and_the_slower_way_is_a_warning(
    doctor: Doctor, mongo_uri: str, make_nats: MakeNats
) -> None:
    old = await make_nats(launch=Launch(binary=Path(str(NATS_211))))
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=old.url) == 0
    assert doctor.wrong() == {("NATS", "version"): "warning", ("NATS", "publish modes"): "warning"}
    assert "neither" in doctor.rows["NATS", "publish modes"]["found"]
    assert "2.14" in doctor.rows["NATS", "publish modes"]["advice"]


@pytest.mark.parametrize(
    ("config", "level", "found", "advice"),
    [
        ({"allow_atomic": True, "allow_batched": True}, "ok", "fast ingest", ""),
        ({"allow_atomic": True}, "ok", "allow_batched is off", "--allow-fast"),
        ({}, "warning", "in a window", "Changewire switches it on when it opens the watcher"),
        ({"allow_atomic": True, "subjects": ["{}.>"]}, "ok", "takes other messages too", "a stream of its own"),
    ],
)
async def test_how_a_watchers_stream_is_published_to_is_said_with_what_would_make_it_faster(
    doctor: Doctor, mongo_uri: str, nats_url: str, nats: Streams, unique: str,
    config: dict[str, Any], level: str, found: str, advice: str,
) -> None:  # fmt: skip
    await register(mongo_uri, unique)
    name = f"S_{unique}".upper()
    subjects = [each.format(name) for each in config.pop("subjects", ["{}.*"])]
    await nats.create(name, subjects=subjects, duplicate_window=120 * 10**9, **config)
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=nats_url) == 0
    assert doctor.rows["NATS", "publish modes"]["found"] == "fast ingest and atomic batches (tried)"
    row = doctor.rows["orders", "stream"]
    assert row["level"] == level
    assert found in row["found"]
    assert advice in row["advice"]


async def test_servers_that_are_not_there_are_said_each_and_nothing_else_is_asked(doctor: Doctor) -> None:
    mongo, nats = free_port(), free_port()
    code = await doctor.look(
        MONGO_URI=f"mongodb://me:{SECRET}@127.0.0.1:{mongo}/?replicaSet=rs0", NATS_URL=f"nats://127.0.0.1:{nats}"
    )
    assert code == 1
    assert doctor.wrong() == {
        ("MongoDB", "reachable"): "problem",
        ("NATS", "reachable"): "problem",
        ("watchers", "registry"): "warning",
    }
    assert len(doctor.rows) == 3
    assert f"127.0.0.1:{mongo}" in doctor.rows["MongoDB", "reachable"]["found"]
    assert f"127.0.0.1:{nats}" in doctor.rows["NATS", "reachable"]["found"]


async def test_small_limits_of_nats_are_warnings_and_too_small_ones_problems(
    doctor: Doctor, mongo_uri: str, make_nats: MakeNats, unique: str
) -> None:
    import nats as vendor

    await register(mongo_uri, unique, sink={"replicas": 3})
    small = await make_nats(max_payload=64 * 1024)
    client = await vendor.connect(small.url)
    name = f"S_{unique}".upper()
    await Streams(client).create(name, duplicate_window=1_000_000_000, allow_atomic=True, allow_direct=True)
    await client.close()
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=small.url) == 0
    assert doctor.wrong() == dict.fromkeys(
        [("NATS", "max_payload"), ("orders", "duplicate window"), ("orders", "replicas")], "warning"
    )
    assert f"nats stream edit {name} --dupe-window 120s" in doctor.rows["orders", "duplicate window"]["advice"]

    tiny = await make_nats(max_payload=4096)
    assert await doctor.look(NATS_URL=tiny.url) == 1
    assert doctor.rows["NATS", "max_payload"]["level"] == "problem"


async def test_what_the_service_would_leave_out_or_refuse_is_said(
    doctor: Doctor, mongo_uri: str, nats_url: str, unique: str
) -> None:
    await register(mongo_uri, unique)
    with pymongo.MongoClient(mongo_uri) as client:
        client[f"state_{unique}"]["watchers"].insert_one({"_id": "later", "watcher": {}, "revision": 99})
        there = {"$set": {"watcher.sink.subject": "{nothing}"}}
        client[f"state_{unique}"]["watchers"].update_one({"_id": "orders"}, there)
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=nats_url, SERVER_ADDR=":8080", CHANGEWIRE_BATCHSIZE="1") == 1
    assert doctor.wrong() == {
        ("settings", "variables"): "warning",
        ("settings", "reads"): "warning",
        ("settings", "token"): "warning",
        ("later", "definition"): "problem",
        ("orders", "definition"): "problem",
    }
    assert "CHANGEWIRE_BATCH_SIZE?" in doctor.rows["settings", "variables"]["found"]
    assert "sink.subject" in doctor.rows["orders", "definition"]["found"]


async def test_settings_that_cannot_be_used_are_misuse(doctor: Doctor) -> None:
    code, said = await doctor.run(MONGO_URI=f"http://u:{SECRET}@h")
    assert code == 2
    assert said.startswith("changewire: invalid settings\n  MONGO_URI: ")
    code, said = await doctor.run("--jsn")
    assert code == 2
    assert said.splitlines() == [said.rstrip("\n")]


async def test_the_collections_that_a_watcher_of_a_database_reads_are_counted(
    doctor: Doctor, mongo_uri: str, nats_url: str, unique: str
) -> None:
    with pymongo.MongoClient(mongo_uri) as client:
        for name in ("orders_1", "orders_2", "orders_tmp", "users"):
            client[f"db_{unique}"].create_collection(name)
    patterns = {"include": ["orders_*", "refunds"], "exclude": ["*_tmp"]}
    await register(mongo_uri, unique, source={"collection": None, **patterns})
    assert await doctor.look(MONGO_URI=mongo_uri, NATS_URL=nats_url) == 0
    assert f"every collection of db_{unique}" in doctor.rows["orders", "change stream"]["found"]
    assert doctor.wrong() == {("orders", "collections"): "warning"}
    said = doctor.rows["orders", "collections"]["found"]
    assert said.startswith(f"2 of db_{unique} are read now")
    assert said.endswith("none fits refunds yet")
