"""docs/roles.md: with exactly these rights everything works, and where one is missing something says which.

The MongoDB roles are tried action by action: without any one of them what its role is for fails. Of the NATS
permissions each one is used, which a client sees that listens to the whole account; the main ones are taken away too.
"""

import asyncio
import copy
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from pymongo import MongoClient

from app.config.settings import load
from app.devservers.servers import MongoServer
from app.doctor.examination import examine
from app.domain.findings import Finding, Level
from app.domain.subjects import covers
from tests.conftest import MakeNats
from tests.integration.cli.test_verify import changewire
from tests.letters import spoilt
from tests.live import Live, until
from tests.pages import blocks, mongosh

PAGE = "docs/roles.md"
BASE = ("changewireState", "changewireOplog")
SCOPES = ("changewireOrders", "changewireShop", "changewireDeployment")
Command = dict[str, Any]


def roles(change: Callable[[str], str] = str) -> dict[str, Command]:
    """The commands of the page that create a role, by its name, and the user of a service."""
    scripts = blocks(PAGE, language="js")
    commands = [command for block in scripts for _, command in mongosh(block.text, change)]
    *created, user = commands
    assert next(iter(user)) == "createUser"
    assert all(next(iter(command)) == "createRole" for command in created)
    return {command["createRole"]: command for command in created} | {"user": user}


ROLES = roles()


def actions(*names: str) -> list[Any]:
    """Each action of these roles, with its role and the number of the privilege it is in."""
    return [
        pytest.param(name, number, action, id=f"{name}-{action}")
        for name in names
        for number, privilege in enumerate(ROLES[name]["privileges"])
        for action in privilege["actions"]
    ]


def test_every_role_of_the_page_is_tried() -> None:
    assert set(ROLES) == {*BASE, *SCOPES, "changewireImages", "changewireDoctor", "user"}
    assert set(ROLES["user"]["roles"]) == {*BASE, "changewireOrders"}


# MongoDB.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded() -> AsyncIterator[MongoServer]:
    """A mongod with access control."""
    async with MongoServer(auth=("root", "toor")) as server:
        yield server


class Granting:
    """A user of a test's own, with roles of the page for the test's own names."""

    def __init__(self, server: MongoServer, unique: str) -> None:
        self.server = server
        self._unique = unique

    def user(self, *names: str, without: tuple[str, int, str] | None = None) -> str:
        """Create the roles and a user that has them, all but one action, and return the user's URI."""
        written = {'"changewire"': f'"state_{self._unique}"', '"shop"': f'"db_{self._unique}"'}
        written |= {'"orders"': f'"orders_{self._unique}"'}

        def here(text: str) -> str:
            for page, real in written.items():
                text = text.replace(page, real)
            return text

        commands = roles(here)
        with MongoClient[dict[str, Any]](self.server.uri) as client:
            for name in names:
                command = copy.deepcopy(commands[name])
                if without is not None and without[0] == name:
                    command["privileges"][without[1]]["actions"].remove(without[2])
                command["privileges"] = [each for each in command["privileges"] if each["actions"]]
                client.admin.command("createRole", f"{name}_{self._unique}", **_without(command, "createRole"))
            granted = [f"{name}_{self._unique}" for name in names]
            client.admin.command("createUser", f"user_{self._unique}", pwd="secret", roles=granted)
        return self.server.uri.replace("root:toor@", f"user_{self._unique}:secret@")


def _without(command: Command, name: str) -> Command:
    return {key: value for key, value in command.items() if key != name}


class Refused(Exception):
    """What a step said that did not do what it is for."""


class Use:
    """A service as it is used. Each step raises Refused where it fails, with what was said."""

    def __init__(self, live: Live) -> None:
        self.live = live

    async def accepted(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.live.call(method, path, **options)
        if answer.status_code >= 400:
            raise Refused(answer.json()["detail"])
        return answer.json() if answer.content else None

    async def becomes(self, look: Callable[[dict[str, Any]], Any], *, seconds: float = 30) -> dict[str, Any]:
        """Wait until it is so of the watcher's status; Refused as soon as that has an error instead."""
        status: dict[str, Any] = {}

        async def decided() -> bool:
            status.clear()
            status.update((await self.live.get("/watchers/orders"))["status"])
            return bool(look(status)) or status["state"] in ("FAILED", "RETRYING")

        try:
            await until(decided, seconds=seconds)
        except AssertionError:
            raise Refused(str(status)) from None
        if not look(status):
            raise Refused(str(status["reason"]))
        return status

    async def add(self, scope: str, **source: Any) -> None:
        place: dict[str, Any] = {"database": self.live.database, "collection": self.live.collection}
        if scope == "changewireShop":
            del place["collection"]
        if scope == "changewireDeployment":
            place = {"include": [f"{self.live.database}.*"]}
        body = {"name": "orders", "source": {**place, **source}, "sink": {"stream": self.live.stream}}
        await self.accepted("POST", "/watchers", json=body)
        await self.becomes(lambda status: status["state"] == "RUNNING")

    async def publishes(self, *expected: str) -> None:
        await self.becomes(lambda status: status["events"]["published"] >= len(expected))
        await self.live.seen(*expected)

    async def takes_a_snapshot(self) -> None:
        await self.accepted("POST", "/watchers/orders/snapshot")
        ended = ("done", "failed", "cancelled")
        status = await self.becomes(lambda status: status["snapshot"]["state"] in ended, seconds=30)
        if status["snapshot"]["state"] != "done" or status["snapshot"]["estimated_total"] is None:
            raise Refused(str(status["snapshot"]))

    async def knows_the_headroom(self) -> None:
        lag = await self.live.get("/watchers/orders/lag")
        if lag["oplog_headroom_seconds"] is None:
            raise Refused(lag["oplog_headroom_why"])

    async def moves(self) -> None:
        await self.accepted("PUT", "/watchers/orders/pause")
        await self.becomes(lambda status: status["state"] == "PAUSED")
        await self.accepted("PUT", "/watchers/orders/token", json={"at": "latest"})
        await self.accepted("PUT", "/watchers/orders/resume")
        await self.becomes(lambda status: status["state"] == "RUNNING")

    async def is_removed(self) -> None:
        await self.accepted("DELETE", "/watchers/orders?checkpoint=delete")

    async def whole(self, scope: str, **source: Any) -> None:
        """All that a watcher is for."""
        await self.starts()
        self.live.insert("old")
        await self.add(scope, **source)
        self.live.insert(1)
        self.live.orders.update_one({"_id": 1}, {"$set": {"a": 1}})
        await self.publishes("1", "update 1")
        await self.takes_a_snapshot()
        await self.knows_the_headroom()
        await self.moves()

    async def starts(self) -> None:
        async def ready_or_refused() -> bool:
            answer = await self.live.call("GET", "/readyz")
            reason = "" if answer.status_code == 200 else answer.json()["reason"]
            if "grant" in reason:
                raise Refused(reason)
            return not reason

        await until(ready_or_refused, seconds=30)

    async def everything(self) -> None:
        """The same from the first change to the last, with what the doctor says of it."""
        await self.whole("changewireOrders")
        if findings := await self.examined():
            raise Refused(str(findings))
        await self.is_removed()

    async def examined(self) -> list[Finding]:
        """What the doctor does not find in order."""
        settings = load(None, environ=self.live.environ, dotenv=Path(os.devnull))
        return [each async for each in examine(settings) if each.level is not Level.OK]

    async def verified(self, directory: Path, **environ: str) -> None:
        names = ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")
        given = {name: self.live.environ[name] for name in names} | environ
        done = await changewire("verify", "orders", environ=given, cwd=directory)
        if done.code:
            raise Refused(done.output + done.errors)


@asynccontextmanager
async def used(uri: str, look_at: str, nats_url: str, unique: str) -> AsyncIterator[Use]:
    async with Live(uri, nats_url, unique, look_at=(look_at, nats_url), ready=False) as live:
        yield Use(live)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_watcher_works_with_exactly_the_roles_of_its_scope(
    guarded: MongoServer, nats_url: str, unique: str, tmp_path: Path, scope: str
) -> None:
    uri = Granting(guarded, unique).user(*BASE, scope)
    async with used(uri, guarded.uri, nats_url, unique) as use:
        await use.whole(scope)
        assert await use.examined() == []
        await use.verified(tmp_path)
        await use.is_removed()
        assert '"level": "warning"' not in use.live.log.getvalue()


async def test_watchers_of_collections_share_a_change_stream_with_the_role_of_the_database(
    guarded: MongoServer, nats_url: str, unique: str
) -> None:
    uri = Granting(guarded, unique).user(*BASE, "changewireShop")
    async with used(uri, guarded.uri, nats_url, unique) as use:
        await use.starts()
        await use.add("changewireOrders")
        await use.live.call("POST", "/watchers", 201, json=use.live.definition("more", source={"collection": "more"}))
        await use.becomes(lambda status: status["reads"] == "shared", seconds=20)


async def test_images_are_switched_on_with_their_role(guarded: MongoServer, nats_url: str, unique: str) -> None:
    uri = Granting(guarded, unique).user(*BASE, "changewireOrders", "changewireImages")
    async with used(uri, guarded.uri, nats_url, unique) as use:
        await use.whole("changewireOrders", pre_and_post_images=True, full_document_before_change="required")
        update = next(each for each in await use.live.messages() if each.body["operationType"] == "update")
        assert update.body["fullDocumentBeforeChange"] == {"_id": 1}


@pytest.mark.long
@pytest.mark.parametrize(("role", "number", "action"), actions(*BASE, "changewireOrders"))
async def test_without_one_action_something_fails_and_says_what_is_missing(
    guarded: MongoServer, nats_url: str, unique: str, role: str, number: int, action: str
) -> None:
    uri = Granting(guarded, unique).user(*BASE, "changewireOrders", without=(role, number, action))
    async with used(uri, guarded.uri, nats_url, unique) as use:
        with pytest.raises(Refused) as refused:
            await use.everything()
        said = str(refused.value) + str(await use.examined())
        assert action in said or "oplog" in said or "CHANGEWIRE_STATE_DB" in said, said


@pytest.mark.parametrize(("scope", "number", "action"), actions("changewireShop", "changewireDeployment"))
async def test_without_one_action_on_a_database_or_the_deployment_something_fails_and_says_what_is_missing(
    guarded: MongoServer, nats_url: str, unique: str, scope: str, number: int, action: str
) -> None:
    uri = Granting(guarded, unique).user(*BASE, scope, without=(scope, number, action))
    async with used(uri, guarded.uri, nats_url, unique) as use:
        with pytest.raises(Refused) as refused:
            await use.whole(scope)
        assert action in str(refused.value), refused.value


@pytest.mark.parametrize(("role", "number", "action"), actions("changewireImages"))
async def test_without_one_action_no_images_are_switched_on(
    guarded: MongoServer, nats_url: str, unique: str, role: str, number: int, action: str
) -> None:
    uri = Granting(guarded, unique).user(*BASE, "changewireOrders", role, without=(role, number, action))
    async with used(uri, guarded.uri, nats_url, unique) as use:
        await use.starts()
        if action == "collMod":  # of a collection that exists
            use.live.insert("old")
        with pytest.raises(Refused) as refused:
            await use.add("changewireOrders", pre_and_post_images=True)
        assert action in str(refused.value), refused.value


async def test_the_doctor_counts_the_change_streams_of_others_with_its_role_alone(
    guarded: MongoServer, nats_url: str, unique: str
) -> None:
    async def counted(*roles: str) -> Finding:
        uri = Granting(guarded, unique + str(len(roles))).user(*BASE, "changewireOrders", *roles)
        settings = load(None, environ={"MONGO_URI": uri, "NATS_URL": nats_url}, dotenv=Path(os.devnull))
        return next(each for each in [found async for found in examine(settings)] if each.check == "change streams")

    with MongoClient[dict[str, Any]](guarded.uri) as client, client[f"other_{unique}"].watch(max_await_time_ms=10_000):
        assert "those of others it may not see (inprog" in (await counted()).found
        assert "those of others" not in (await counted("changewireDoctor")).found


# NATS.


def accounts(stream: str, without: str | None = None) -> str:
    """The page's accounts in one, for another stream and without one right, beside a user who may do everything."""
    users = ["{user: root, password: toor}"]
    for block in blocks(PAGE, language="nats"):
        lines = [line for line in block.text.splitlines() if without is None or line.strip() != f'"{without}"']
        text = "\n".join(lines).replace("ORDERS", stream)
        text = text.replace("$CHANGEWIRE_NATS_PASSWORD", "secret").replace("$CHANGEWIRE_AUDITOR_PASSWORD", "secret")
        users.append(text.partition("users: [")[2].rpartition("]")[0])
    return "accounts {\n  APP {\n    jetstream: enabled\n    users: [" + "\n".join(users) + "]\n  }\n}"


def allowed(user: str) -> list[str]:
    """What a user of the page may publish to."""
    (block,) = (each for each in blocks(PAGE, language="nats") if f"user: {user}," in each.text)
    text = block.text.partition("publish:")[2].partition("]")[0]
    return [line.strip().strip('"') for line in text.splitlines() if line.strip().startswith('"')]


class Heard:
    """The subjects of all that is published in an account."""

    def __init__(self) -> None:
        self.subjects: set[str] = set()

    async def take(self, message: Msg) -> None:
        self.subjects.add(message.subject)

    def unused(self, rights: list[str], stream: str) -> list[str]:
        """Those of a page's rights by which nothing was published."""
        here = [(right, right.replace("ORDERS", stream)) for right in rights]
        return [right for right, real in here if not any(covers(real, subject) for subject in self.subjects)]


@asynccontextmanager
async def restricted(
    make_nats: MakeNats, mongo_uri: str, unique: str, without: str | None = None
) -> AsyncIterator[tuple[Callable[[str], Live], str]]:
    """What makes a service as the page's user, by the instance's name, and root's URL."""
    stream = f"ORDERS{unique}".upper()  # in a bucket's name an underscore would be escaped
    server = await make_nats(config=accounts(stream, without))
    root = server.url.replace("nats://", "nats://root:toor@")

    def service(instance: str) -> Live:
        live = Live(
            mongo_uri, server.url, unique, look_at=(mongo_uri, root), CHANGEWIRE_INSTANCE=instance,
            CHANGEWIRE_NATS_USER="changewire", CHANGEWIRE_NATS_PASSWORD="secret",
            CHANGEWIRE_NATS_INBOX_PREFIX="_INBOX_changewire",
        )  # fmt: skip
        live.collection, live.stream = stream.lower(), stream
        return live

    yield service, root


async def test_each_right_in_nats_is_used_and_nothing_else_is_asked_for(
    make_nats: MakeNats, mongo_uri: str, unique: str, tmp_path: Path
) -> None:
    async with restricted(make_nats, mongo_uri, unique) as (service, root), service("first") as live:
        use, heard = Use(live), Heard()
        listening = await nats.connect(root)
        await listening.subscribe(">", cb=heard.take)
        await listening.flush()
        live.orders.insert_one({"_id": "first"})
        await use.add("changewireOrders")
        live.insert(1)
        live.orders.insert_one({"_id": 2, "text": "x" * 2_000_000})
        live.orders.insert_one(spoilt({"_id": 3}))
        live.insert(4)
        await live.seen("1", "2", "4")
        config = await live.streams.config(live.stream)
        assert config is not None
        await live.streams.api(f"STREAM.UPDATE.{live.stream}", {**config, "allow_direct": False})
        await live.put(sink={"oversize": "dead_letter"})
        live.orders.insert_one({"_id": 5, "text": "x" * 2_000_000})
        live.insert(6)
        await live.seen("1", "2", "4", "6")
        unreadable, large = (await live.get("/watchers/orders/dead-letters"))["dead_letters"]
        assert (await live.get(f"/watchers/orders/dead-letters/{large['sequence']}"))["reason"] == "oversize"
        await live.put(sink={"oversize": "claim_check"})
        await use.accepted("POST", f"/watchers/orders/dead-letters/{large['sequence']}/replay")
        await live.seen("1", "2", "4", "6", "5")
        await use.takes_a_snapshot()
        assert (await live.get("/watchers/orders/stream"))["consumers"] == []
        assert await use.examined() == []
        async with service("second") as second:

            async def answered() -> bool:
                return (await second.get("/watchers/orders"))["status"]["as_of"] is None

            await until(answered)
        auditor = {"CHANGEWIRE_NATS_USER": "auditor", "CHANGEWIRE_NATS_INBOX_PREFIX": "_INBOX_auditor"}
        await use.verified(tmp_path, CHANGEWIRE_NATS_PASSWORD="secret", **auditor)
        await use.accepted("DELETE", f"/watchers/orders/dead-letters/{unreadable['sequence']}")
        await use.is_removed()
        await listening.drain()  # with all that was published by now
        assert heard.unused(allowed("changewire"), live.stream) == []
        assert heard.unused(allowed("auditor"), live.stream) == []
        lines = map(json.loads, live.log.getvalue().splitlines())
        denied = [str(line["subject"]) for line in lines if line["event"] == "nats_permission_denied"]
        trial = "$JS.API.STREAM.DELETE.CHANGEWIRE_TRIAL_"  # the doctor's, which the page does not allow
        assert [subject for subject in denied if not subject.startswith(trial)] == []


@pytest.mark.parametrize("right", ["ORDERS.*", "$JS.API.STREAM.CREATE.ORDERS", "$JS.API.STREAM.MSG.GET.ORDERS"])
async def test_without_a_main_right_in_nats_the_reason_names_it(
    make_nats: MakeNats, mongo_uri: str, unique: str, right: str
) -> None:
    assert right in allowed("changewire")
    async with restricted(make_nats, mongo_uri, unique, without=right) as (service, _), service("a") as live:
        answer = await live.call("POST", "/watchers", json=live.definition())
        live.insert(1)
        if "MSG.GET" in right:  # of a new stream there is nothing to read back
            await live.seen("1")
            await live.restart()
        subject = right.replace("ORDERS", live.stream).removesuffix("*")

        async def said() -> bool:
            watchers = await live.get("/watchers") if answer.status_code == 201 else answer.text
            return subject in json.dumps(watchers)

        await until(said)


async def test_an_auditor_can_change_nothing(make_nats: MakeNats, unique: str) -> None:
    stream = f"ORDERS_{unique}".upper()
    server = await make_nats(config=accounts(stream))
    refused = asyncio.Event()

    async def error(problem: Exception) -> None:
        if "permissions violation" in str(problem).lower():
            refused.set()

    client = await nats.connect(
        server.url, user="auditor", password="secret", inbox_prefix=b"_INBOX_auditor", error_cb=error
    )
    for subject in (f"{stream}.insert", f"$JS.API.STREAM.DELETE.{stream}", f"$JS.API.STREAM.PURGE.{stream}"):
        refused.clear()
        await client.publish(subject, b"")
        async with asyncio.timeout(10):
            await refused.wait()
    await client.close()
