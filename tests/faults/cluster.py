"""Three mongods and three nats-servers on 127.0.0.1, each behind a proxy that it is known by.

The replica set's members, and the addresses that the NATS servers tell their clients, are the proxies': discovery does
not lead past them. What this does not cover: replication comes by MongoDB's proxies too, unharmed (a fault of the
servers' own network is none of a link's), and NATS's routes do not pass a proxy at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import nats
import nats.errors
from nats.aio.client import Client
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import AutoReconnect, PyMongoError

from app.devservers.nats_cluster import membership
from app.devservers.servers import HOST, Launch, MongoServer, NatsServer, Server, free_port
from tests.faults.proxy import Apart, Link, Proxy
from tests.service import until

MEMBERS = 3
SET_NAME = "faults"
APP_NAME = "faulty"
"""By which the proxies tell Changewire's connections to MongoDB from all others."""
ELECTION_MS = 3_000
"""A third of MongoDB's default: a run waits for many elections."""

OPLOG_MB = 20_000
"""The history has to reach back to a run's begin, however long that was."""
ENOUGH_BYTES = 100 << 30
"""What the account may store where nothing is wrong."""
ACCOUNT = """
accounts {{ FAULTS {{ jetstream {{ max_file: {} }}, users: [ {} ] }} }}
no_auth_user: anybody
"""
PASSWORD = "anything"

S = TypeVar("S", bound=Server)


class MongoMember(MongoServer):
    """A member of a replica set; `initiated` once the set was."""

    initiated = False

    def _until_ready(self, deadline: float) -> None:
        self._poll(self._listens, deadline)
        if self.initiated:
            client: MongoClient[dict[str, Any]] = MongoClient(
                HOST, self.port, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=2000
            )
            with client:
                self._poll(lambda: _has_state(client), deadline)


def _has_state(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        hello = client.admin.command("hello")
    except PyMongoError:
        return False
    return bool(hello["isWritablePrimary"] or hello["secondary"])


class NatsNode(NatsServer):
    """A server of a NATS cluster; everybody is the user of one account, whose storage can be bounded while it runs."""

    plain = ""
    """Its configuration but for the account."""
    users: Sequence[str] = ("anybody",)
    """Who may connect; those who do not say who they are come as the first."""

    def healthy(self) -> bool:
        return self._healthy()

    def bound_store(self, limit: int) -> None:
        """Bound what the account may store, at once where it runs. A message too many is refused as by a full disk."""
        before, self.config = self.config, self.plain + ACCOUNT.format(limit, self._users())
        if self.running:
            path = self.data / "nats-server.conf"
            path.write_text(path.read_text().replace(before, self.config))
            os.kill(self.pid, signal.SIGHUP)

    def _users(self) -> str:
        return ", ".join(f'{{ user: "{name}", password: "{PASSWORD}" }}' for name in self.users)


class Node(Generic[S]):
    """A server and its proxy, which refuses connections while the server is down."""

    def __init__(self, name: str, server: S, proxy: Proxy) -> None:
        self.name = name
        self.server = server
        self.proxy = proxy

    async def start(self) -> None:
        await self.proxy.listen()  # a mongod finds itself in its set by its advertised address
        await self.server.start()

    def kill(self) -> None:
        self.proxy.refuse()
        self.server.kill()

    async def terminate(self) -> None:
        await self.server.stop()
        self.proxy.refuse()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    async def close(self) -> None:
        await self.server.close()
        await self.proxy.close()


class Cluster(ABC, Generic[S]):
    """Three nodes, and what is wrong with the way to them. An async context manager."""

    def __init__(self) -> None:
        self.link = Link()
        self.apart: Apart = {}
        """By an instance's mark: what is wrong with its way alone."""
        self.nodes: list[Node[S]] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                stack.push_async_callback(node.close)
            await asyncio.gather(*(node.start() for node in self.nodes))
            await self._form()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def ports(self) -> Sequence[int]:
        """The ports that clients know."""
        return [node.proxy.port for node in self.nodes]

    @abstractmethod
    async def _form(self) -> None:
        """Make one cluster of the started nodes, and wait for it."""

    async def repair(self) -> None:
        """End every fault there may be."""
        for link in (self.link, *self.apart.values()):
            link.heal()
        for node in self.nodes:
            if node.server.running:
                node.thaw()
            else:
                await node.start()

    @abstractmethod
    async def whole(self) -> bool:
        """Whether all nodes are there, have caught up, and have a leader."""


class MongoCluster(Cluster[MongoMember]):
    """A replica set of three, of this program where one is named."""

    def __init__(self, binary: Path | None = None) -> None:
        super().__init__()
        for index in range(MEMBERS):
            member = MongoMember(replica_set=SET_NAME, oplog_mb=OPLOG_MB, launch=Launch(binary=binary))
            proxy = Proxy(self.link, partial(getattr, member, "port"), APP_NAME.encode(), self.apart)
            self.nodes.append(Node(f"mongod {index}", member, proxy))

    @property
    def uri(self) -> str:
        """For everyone but Changewire, whose URI has an `appName` as well."""
        return f"mongodb://{','.join(f'{HOST}:{port}' for port in self.ports)}/?replicaSet={SET_NAME}"

    async def _form(self) -> None:
        members = [{"_id": index, "host": f"{HOST}:{port}"} for index, port in enumerate(self.ports)]
        settings = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 500}
        await self._command(
            self.nodes[0], {"replSetInitiate": {"_id": SET_NAME, "members": members, "settings": settings}}
        )
        await until(self.whole, "the replica set is whole", within=60)
        for node in self.nodes:
            node.server.initiated = True

    async def primary(self) -> Node[MongoMember]:
        """The primary; waits for one."""
        found: Node[MongoMember] = await until(self._primary, "there is a primary", within=60)
        return found

    async def step_down(self) -> str:
        """Have the primary give up for five seconds; its name."""
        primary = await self.primary()
        with suppress(AutoReconnect):  # some versions close the connection that asked
            await self._command(primary, {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 4})
        return primary.name

    async def whole(self) -> bool:
        states = await asyncio.gather(*map(self._hello, self.nodes))
        primaries = [state for state in states if state.get("isWritablePrimary")]
        return len(primaries) == 1 and sum(bool(state.get("secondary")) for state in states) == MEMBERS - 1

    async def _primary(self) -> Node[MongoMember] | None:
        states = await asyncio.gather(*map(self._hello, self.nodes))
        return next((n for n, s in zip(self.nodes, states, strict=True) if s.get("isWritablePrimary")), None)

    async def _hello(self, node: Node[MongoMember]) -> dict[str, Any]:
        try:
            return await self._command(node, {"hello": 1})
        except PyMongoError:
            return {}

    async def _command(self, node: Node[MongoMember], command: dict[str, Any]) -> dict[str, Any]:
        async with AsyncMongoClient(
            HOST, node.server.port, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=10_000
        ) as client:
            return dict(await client.admin.command(command))


class NatsCluster(Cluster[NatsNode]):
    """Three nats-servers with JetStream, for these users besides those who do not say who they are."""

    def __init__(self, users: Sequence[str] = ()) -> None:
        super().__init__()
        ports = [free_port() for _ in range(MEMBERS)]
        for index in range(MEMBERS):
            node = NatsNode()
            node.users = ("anybody", *users)
            proxy = Proxy(self.link, partial(getattr, node, "port"), apart=self.apart)
            node.plain = membership(index, ports, cluster=SET_NAME, advertise=f"{HOST}:{proxy.port}")
            node.bound_store(ENOUGH_BYTES)
            self.nodes.append(Node(f"n{index}", node, proxy))

    @property
    def url(self) -> str:
        return ",".join(f"nats://{HOST}:{port}" for port in self.ports)

    async def _form(self) -> None:
        await until(self.whole, "the NATS cluster is whole", within=60)

    async def repair(self) -> None:
        self.bound_store()
        await super().repair()

    async def whole(self) -> bool:
        return all(await asyncio.gather(*(asyncio.to_thread(node.server.healthy) for node in self.nodes)))

    async def leader(self, stream: str) -> Node[NatsNode]:
        """The node that leads the stream; waits for one."""

        async def led() -> str | None:
            info = await self.ask(f"STREAM.INFO.{stream}")
            return (info.get("cluster") or {}).get("leader")

        name = await until(led, f"{stream} has a leader", within=60)
        return next(node for node in self.nodes if node.name == name)

    async def only_on(self, nodes: Sequence[object], streams: Sequence[str]) -> set[str]:
        """Those of the streams that have one replica, on one of these nodes."""
        found = set()
        for stream in streams:
            info = await self.ask(f"STREAM.INFO.{stream}")
            if info.get("config", {}).get("num_replicas") == 1:
                found |= {stream for node in self.nodes if node in nodes and node.name == info["cluster"]["leader"]}
        return found

    async def step_down(self, stream: str) -> str:
        """Have the stream's leader give up; its name."""
        leader = await self.leader(stream)
        await self.ask(f"STREAM.LEADER.STEPDOWN.{stream}")
        return leader.name

    def bound_store(self, limit: int = ENOUGH_BYTES) -> None:
        """Bound what may be stored."""
        for node in self.nodes:
            node.server.bound_store(limit)

    async def publish(self, subject: str, body: bytes) -> bool:
        """Publish a message once, past the proxies and without any header; whether its stream has acknowledged it."""
        for node in self.nodes:
            with suppress(OSError, nats.errors.Error, TimeoutError):
                async with connected(node.server) as client:
                    try:
                        answer = json.loads((await client.request(subject, body, timeout=2)).data)
                    except (nats.errors.Error, TimeoutError):
                        return False
                    return "error" not in answer
        return False

    async def ask(self, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API by any node that answers; `{}` where none does."""
        payload = b"" if body is None else json.dumps(body).encode()
        for node in self.nodes:
            with suppress(OSError, nats.errors.Error, TimeoutError):
                async with connected(node.server) as client:
                    return dict(json.loads((await client.request(f"$JS.API.{endpoint}", payload, timeout=2)).data))
        return {}

    async def change(self, endpoint: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for a change until it is made."""

        async def made() -> dict[str, Any]:
            answer = await self.ask(endpoint, body)
            return {} if "error" in answer else answer

        answer: dict[str, Any] = await until(made, f"{endpoint} is done", within=60)
        return answer


@asynccontextmanager
async def accompanied(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do these things for as long as the block lasts. Their errors are raised at its end.

    They are cancelled until they have ended: nats-py now and then takes a cancellation for one of its own.
    """
    tasks = [asyncio.create_task(work, name=str(work)) for work in works]
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1)
        for task in tasks:
            if not task.cancelled():
                task.result()


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[Client]:
    """A connection to this server alone, past its proxy: one that reconnects would go to the addresses it is told.

    Raises OSError, nats.errors.Error, TimeoutError.
    """
    client = await nats.connect(
        server.url, allow_reconnect=False, connect_timeout=1, max_reconnect_attempts=1, error_cb=_ignore
    )
    try:
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """Servers are asked while they are down; nats-py would print each failure."""
