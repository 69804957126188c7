"""The service within the test's own process: real HTTP on a free port, with the servers behind it looked at directly.

`Live` runs what `serve` runs (settings from an environment, `create_app`, uvicorn) and keeps every answer and log line,
so that a test can search them. What matters is asked of the servers, not of the service: `seen` reads the stream,
`mongo` is a client of its own. Not for tests that kill the service: that takes a process.
"""

import asyncio
import inspect
import io
import json
import logging
import os
import ssl
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import nats
import structlog
from nats.aio.client import Client
from pymongo import MongoClient

from app.cli.http_server import server
from app.cli.listening import listen
from app.config import logging as app_logging
from app.config.settings import load
from app.main import create_app
from tests.service.waiting import pause

PROBES = ("/healthz", "/readyz", "/health")


async def until(look: Callable[[], Any], *, seconds: float = 20) -> Any:
    """Ask `look` (plain or async) until what it returns is true, and return that."""
    begin = time.monotonic()
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        waited = time.monotonic() - begin
        assert waited < seconds, f"not so within {seconds:g} s: {inspect.getsource(look).strip()}"
        await asyncio.sleep(pause(waited))


@dataclass(frozen=True)
class Message:
    """A message as the stream holds it."""

    sequence: int
    subject: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["Nats-Msg-Id"]

    @property
    def token(self) -> str:
        return str(self.body["_id"]["_data"])

    @property
    def short(self) -> str:
        """The operation and the document's key, such as `insert 1`."""
        return f"{self.body['operationType']} {self.body.get('documentKey', {}).get('_id')}"


class Streams:
    """A NATS client of the test's own, for looking at streams and making them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def api(self, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API in raw JSON, since nats-py drops the settings it does not know."""
        payload = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(
            (await self.client.request(f"$JS.API.{endpoint}", payload, timeout=10)).data
        )
        return answer

    async def create(self, name: str, **config: Any) -> None:
        answer = await self.api(
            f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.*"], "storage": "file", **config}
        )
        assert "error" not in answer, answer

    async def config(self, name: str) -> dict[str, Any] | None:
        """The stream's settings; None where there is no such stream."""
        return (await self.api(f"STREAM.INFO.{name}")).get("config")

    async def count(self, name: str) -> int:
        """How many messages the stream holds; 0 where there is no such stream."""
        return int(((await self.api(f"STREAM.INFO.{name}")).get("state") or {"messages": 0})["messages"])

    async def messages(self, name: str) -> list[Message]:
        """All that the stream holds, in its order; nothing where there is no such stream."""
        state = (await self.api(f"STREAM.INFO.{name}")).get("state") or {"first_seq": 1, "last_seq": 0}
        found = []
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            raw = (await self.api(f"STREAM.MSG.GET.{name}", {"seq": sequence})).get("message")
            if raw is not None:  # else it was deleted
                _, *lines = b64decode(raw.get("hdrs", "")).decode().strip().split("\r\n")
                headers = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
                body = json.loads(b64decode(raw.get("data", "")) or b"{}")
                found.append(Message(sequence, raw["subject"], headers, body))
        return found


class Live:
    """The service and what a test needs around it. An async context manager.

    `environ` holds settings as variables (`CHANGEWIRE_API_TOKEN="…"`). `look_at` are the URLs under which the test
    itself reaches the servers, where the service's own are not to work, and `look_with` its NATS credentials; `verify`
    is how it looks at HTTPS. Database, collection, stream and state are of this test alone: `db_<unique>`,
    `orders_<unique>`, `ORDERS_<UNIQUE>`, `state_<unique>`.
    """

    def __init__(
        self,
        mongo_uri: str,
        nats_url: str,
        unique: str,
        *,
        config: Path | None = None,
        look_at: tuple[str, str] | None = None,
        look_with: Path | None = None,
        ready: bool = True,
        verify: ssl.SSLContext | bool = True,
        **environ: str,
    ) -> None:
        self.unique = unique
        self.database, self.collection = f"db_{unique}", f"orders_{unique}"
        self.stream, self.state_db = self.collection.upper(), f"state_{unique}"
        self.said: list[str] = []
        self.log = io.StringIO()
        self.http: httpx.AsyncClient
        self.shut: Callable[[], None]
        """Ask the service to stop, and do not wait for it."""
        self.streams: Streams
        self.mongo: MongoClient
        self._config = config
        self._look_at = look_at or (mongo_uri, nats_url)
        self._look_with = None if look_with is None else str(look_with)
        self.waits_until_ready = ready
        self._verify = verify
        self.environ = {
            "MONGO_URI": mongo_uri,
            "NATS_URL": nats_url,
            "SERVER_ADDR": "127.0.0.1:0",
            "LOG_LEVEL": "info",
            "LOG_FORMAT": "json",
            "CHANGEWIRE_STATE_DB": self.state_db,
            **environ,
        }
        self._around = AsyncExitStack()
        self._service = AsyncExitStack()

    async def __aenter__(self) -> Self:
        mongo_uri, nats_url = self._look_at
        self.mongo = self._around.enter_context(MongoClient(mongo_uri, serverSelectionTimeoutMS=5000, tz_aware=True))
        client = await nats.connect(nats_url, user_credentials=self._look_with)
        self._around.push_async_callback(client.close)
        self.streams = Streams(client)
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            await self._around.aclose()

    async def start(self, config: Path | None = None, **environ: str) -> None:
        """Start the service (again), with what is given changed in its settings, and wait until it is ready."""
        self.environ |= environ
        self._config = config or self._config
        settings = load(self._config, environ=self.environ, dotenv=Path(os.devnull))
        root, level = logging.getLogger(), logging.getLogger().level
        handlers = root.handlers[:]
        app_logging.configure(settings.log_level, settings.log_format, secrets=settings.secrets, stream=self.log)

        def restore() -> None:
            structlog.reset_defaults()
            root.handlers[:] = handlers
            root.setLevel(level)

        self._service.callback(restore)
        http = server(create_app(settings), settings)
        (socket,) = listen(settings.host, settings.port)
        running = asyncio.create_task(http.serve(sockets=[socket]), name="live")

        def shut() -> None:
            http.should_exit = True

        async def end() -> None:
            shut()
            await running

        self.shut = shut

        self._service.push_async_callback(end)
        token = next((one.secret for one in settings.tokens if one.role == "write"), None)
        scheme = "http" if settings.tls_cert is None else "https"
        self.url = f"{scheme}://127.0.0.1:{socket.getsockname()[1]}"
        self.http = await self._service.enter_async_context(
            httpx.AsyncClient(
                base_url=self.url,
                trust_env=False,
                verify=self._verify,
                timeout=30,
                headers={} if token is None else {"Authorization": f"Bearer {token}"},
            )
        )
        await until(lambda: http.started or running.done())
        if self.waits_until_ready:
            await until(self.is_ready)

    async def stop(self) -> None:
        """Stop the service as SIGTERM does; `start` may follow."""
        await self._service.aclose()

    async def restart(self, config: Path | None = None, **environ: str) -> None:
        await self.stop()
        await self.start(config, **environ)

    async def is_ready(self) -> bool:
        return (await self.call("GET", "/readyz")).status_code == 200

    # Asking the service.

    async def call(self, method: str, path: str, expect: int | None = None, **options: Any) -> httpx.Response:
        """Ask the service; `expect` is the status it has to answer. Every error has to be a problem of RFC 9457."""
        answer = await self.http.request(method, path, **options)
        self.said.append(f"{answer.headers!r} {answer.text}")
        if expect is not None:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        if answer.status_code >= 400 and not path.partition("?")[0].endswith(PROBES):
            assert answer.headers["Content-Type"] == "application/problem+json", answer.text
            problem = answer.json()
            assert problem["status"] == answer.status_code
            assert problem["type"]
            assert problem["title"]
            assert problem["detail"]
        assert "Traceback" not in answer.text
        assert 'File "' not in answer.text
        return answer

    async def get(self, path: str) -> Any:
        return (await self.call("GET", path, 200)).json()

    async def refused(self, status: int, method: str, path: str, **options: Any) -> str:
        """The `detail` of a call that has to be refused with this status."""
        return str((await self.call(method, path, status, **options)).json()["detail"])

    def definition(self, name: str = "orders", **parts: Any) -> dict[str, Any]:
        """A watcher of this test's collection; `source` adds to the source, other parts are taken as they are."""
        source = {"database": self.database, "collection": self.collection, **parts.pop("source", {})}
        return {"name": name, "source": source, **parts}

    async def add(self, name: str = "orders", **parts: Any) -> dict[str, Any]:
        """Add a watcher and, unless it is paused, wait until it runs."""
        await self.call("POST", "/watchers", 201, json=self.definition(name, **parts))
        return await self.reaches("PAUSED" if parts.get("paused") else "RUNNING", name)

    async def put(self, name: str = "orders", **parts: Any) -> dict[str, Any]:
        """Replace a watcher and, unless it is paused, wait until it runs again."""
        await self.call("PUT", f"/watchers/{name}", 200, json=self.definition(name, **parts))
        return await self.reaches("PAUSED" if parts.get("paused") else "RUNNING", name)

    async def reaches(self, state: str, name: str = "orders") -> dict[str, Any]:
        """Wait until the watcher is in this state, and return it."""
        watcher: dict[str, Any] = {}

        async def there() -> bool:
            watcher.update(await self.get(f"/watchers/{name}"))
            return bool(watcher["status"]["state"] == state)

        try:
            await until(there)
        except AssertionError:
            raise AssertionError(f"{name} is not {state}: {watcher['status']}") from None
        return watcher

    async def pause(self, name: str = "orders") -> None:
        await self.call("PUT", f"/watchers/{name}/pause", 202)
        await self.reaches("PAUSED", name)

    async def resume(self, name: str = "orders") -> None:
        await self.call("PUT", f"/watchers/{name}/resume", 202)
        await self.reaches("RUNNING", name)

    # Looking at the servers.

    @property
    def orders(self) -> Any:
        """The watched collection."""
        return self.mongo[self.database][self.collection]

    def insert(self, *keys: int | str) -> None:
        for key in keys:
            self.orders.insert_one({"_id": key})

    @property
    def positions(self) -> Any:
        """The positions of the watchers that name no `checkpoint`: one document each, named as the watcher."""
        return self.mongo[self.state_db]["checkpoints"]

    def checkpoint(self, collection: str | None = None, database: str | None = None, name: str = "orders") -> Any:
        """What is stored as the watcher's position: all documents of its collection, as they are."""
        if database is None:
            return list(self.positions.find({"_id": name}))
        return list(self.mongo[database][collection or self.collection].find().sort("_id", 1))

    async def messages(self, stream: str | None = None) -> list[Message]:
        return await self.streams.messages(stream or self.stream)

    async def seen(self, *expected: str, stream: str | None = None) -> list[Message]:
        """Wait until the stream holds as many messages as expected; it has to hold these, in this order, no others.

        A message is written as operation and key, `insert 1`; a bare key is an insert."""
        wanted = [each if " " in each else f"insert {each}" for each in map(str, expected)]
        found: list[Message] = []

        async def enough() -> bool:
            try:
                if await self.streams.count(stream or self.stream) < len(wanted):
                    return False  # to read a long stream at every look would take the time that is waited
                found[:] = await self.messages(stream)
            except nats.errors.NoRespondersError:  # JetStream begins again after a reload
                return False
            return len(found) >= len(wanted)

        try:
            await until(enough)
        except AssertionError:
            found = await self.messages(stream)
            watchers = {each["name"]: each["status"] for each in await self.get("/watchers")}
            raise AssertionError(f"{[one.short for one in found]} in place of {wanted}: {watchers}") from None
        there = [message.short for message in found]
        assert there == wanted, f"{there} in place of {wanted}"
        return found

    def stored(self) -> list[Any]:
        """The registry's documents, without what is noted some time after a watcher runs: that it has begun."""
        return list(self.mongo[self.state_db]["watchers"].find({}, {"newStart": 0, "begin": 0}))

    async def facts(self) -> dict[str, Any]:
        """What the servers hold that a refused call must not change."""
        databases = {
            name: sorted(self.mongo[name].list_collection_names())
            for name in self.mongo.list_database_names()
            if self.unique in name
        }
        checkpoints = self.mongo["resume-tokens"]
        kept = list(self.mongo[self.state_db]["checkpoints"].find())
        names = [name for name in checkpoints.list_collection_names() if self.unique in name]
        streams = (await self.streams.api("STREAM.NAMES")).get("streams") or []
        return {
            "watchers": self.stored(),
            "databases": databases,
            "checkpoints": {name: list(checkpoints[name].find()) for name in names} | {"kept": kept},
            "streams": {name: await self.streams.config(name) for name in streams if self.unique.upper() in name},
        }
