"""The real service as a process of its own, and a stage to break it on: servers, traffic, and what arrived in the end.

A test gets a `Stage`, starts services on it, adds a watcher, lets changes happen, kills what it wants to kill, and
asks `stage.check()` whether the stream holds every change once and in order. Nothing here looks into the service: it is
asked over HTTP, and judged by its messages.

Run as a program (`python -m tests.service serve`) it is the service with a trap in it: at one exact moment, named in
the variable TRAP, the process kills or stops itself. See `Trap`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pymongo import AsyncMongoClient, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import PyMongoError

from app.devservers.process import freeze
from app.devservers.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.05
FETCH = 500
HEADER = "Nats-Msg-Id"

# Ends with the test run, even where that is killed; see `app/devservers/process.py`.
_DIES_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@cache
def bytecode() -> tempfile.TemporaryDirectory[str]:
    """Where all services of a test run keep their bytecode: compiling them anew at each start would cost minutes.

    Made when asked for: this module is a program too, and one that is killed removes nothing.
    """
    return tempfile.TemporaryDirectory(prefix="changewire-bytecode-", ignore_cleanup_errors=True)


async def until(condition: Callable[[], object | Awaitable[object]], what: str, *, within: float = 30.0) -> Any:
    """Return the first true result of `condition` (which may be awaitable); AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped (SIGSTOP)."""
    states = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    return bool(states) and set(states) == {"T"}


class Change(NamedTuple):
    """What tells a change from all others. `number` is unique to it; a delete, its document's only one, has none."""

    operation: str
    id: Any
    number: int | None


@dataclass(frozen=True)
class Message:
    """One message as it is on the stream."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return self.headers[HEADER]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def change(self) -> Change:
        event = self.event
        operation, number = event["operationType"], None
        if operation in ("insert", "replace"):
            number = event["fullDocument"]["n"]
        elif operation == "update":
            number = event["updateDescription"]["updatedFields"]["n"]
        return Change(operation, event["documentKey"]["_id"], number)


class Service:
    """One `changewire serve` with an address, a working directory and a log of its own."""

    def __init__(self, name: str, workdir: Path, environment: Mapping[str, str], *, trap: Trap | None = None) -> None:
        self.name = name
        self.port = free_port()
        self.trap = trap
        """Sprung at most once: the next start is an ordinary one."""
        self.log = workdir / f"{name}.log"
        self._workdir = workdir
        self._environment = {**environment, "SERVER_ADDR": f"127.0.0.1:{self.port}"}
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    # Life

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> Self:
        """Start it and wait until HTTP answers; the watchers may still be starting."""
        self.spawn()
        await until(self._lives, f"{self.name} answers /livez", within=60)
        return self

    def spawn(self) -> None:
        """Start it and do not wait."""
        assert not self.running, f"{self.name} runs already"
        trap, self.trap = self.trap, None
        module = "app" if trap is None else "tests.service"
        environment = self._environment if trap is None else {**self._environment, "TRAP": str(trap)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIES_WITH_PARENT, str(os.getpid()), "-m", module, "serve"],
                cwd=self._workdir,  # where no .env and no connector.yaml of somebody else's is read
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def _lives(self) -> bool:
        assert self.running, f"{self.name} ended with {self.exit_code} at its start:\n{self.log_tail()}"
        try:
            return (await self._http.get("/livez", timeout=2)).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End it at once (SIGKILL); fine if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def terminate(self, within: float = 30) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        await until(lambda: not self.running, f"{self.name} ends after SIGTERM", within=within)
        assert self.exit_code is not None
        return self.exit_code

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP) and wait until it has stopped: it does nothing and holds on to everything."""
        freeze(self.pid)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def trapped(self, within: float = 30) -> None:
        """Wait until the trap has sprung: the process is dead by SIGKILL, or stands still by SIGSTOP."""
        await until(lambda: not self.running or is_stopped(self.pid), f"the trap in {self.name} springs", within=within)
        assert self.exit_code in (None, -signal.SIGKILL), f"it ended by itself:\n{self.log_tail()}"

    @property
    def resident(self) -> int:
        """Its resident memory in bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found.group(1)) * 1024

    def log_tail(self, lines: int = 40) -> str:
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(said[-lines:])

    async def close(self) -> None:
        self.kill()
        await self._http.aclose()

    # What it is asked

    async def call(self, method: str, path: str, body: object = None, *, status: int | None = None) -> httpx.Response:
        """Make one HTTP call; AssertionError where another `status` comes back."""
        answer = await self._http.request(method, path, json=body)
        assert status in (None, answer.status_code), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    async def status(self, watcher: str) -> dict[str, Any]:
        """The watcher's status, `{}` where this service does not know it or does not answer (yet)."""
        try:
            answer = await self.call("GET", f"/watchers/{watcher}/status")
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    async def state(self, watcher: str) -> str | None:
        state = (await self.status(watcher)).get("state")
        return None if state is None else str(state)

    async def until_state(self, watcher: str, *states: str, within: float = 30) -> dict[str, Any]:
        """Wait until the watcher is in one of the states, and return its status."""
        seen: dict[str, Any] = {}

        async def there() -> bool:
            seen.clear()
            seen.update(await self.status(watcher))
            return seen.get("state") in states

        try:
            await until(there, "", within=within)
        except AssertionError:
            raise AssertionError(f"{watcher} in {self.name} is not {' or '.join(states)} but {seen}") from None
        return seen

    async def up(self) -> bool:
        """Whether /healthz says UP."""
        answer = await self.call("GET", "/healthz")
        assert (answer.status_code, answer.json()["status"]) in ((200, "UP"), (503, "DOWN")), answer.text
        return answer.status_code == 200


class Stage:
    """One test's world. Every name is this test's own, so that many share the servers."""

    def __init__(self, mongo_uri: str, nats_url: str, workdir: Path, unique: str) -> None:
        self.mongo_uri = mongo_uri
        self.nats_url = nats_url
        self.database = f"db_{unique}"
        self.stream = f"S_{unique}".upper()
        self.watcher = "things"
        self.written: list[Change] = []
        """Every change made to the watched collection, in order."""
        self._workdir = workdir
        self._unique = unique
        self._numbers = 0
        self._alive: list[int] = []
        self._services: list[Service] = []
        self._nats: NatsClient | None = None
        self.mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_uri, serverSelectionTimeoutMS=30_000)

    @property
    def collection(self) -> Any:
        """The watched collection."""
        return self.mongo[self.database]["things"]

    async def close(self) -> None:
        for service in self._services:
            await service.close()
            print(f"--- the end of {service.name}'s log\n{service.log_tail()}")  # shown where the test has failed
        if self._nats is not None:
            await self._nats.close()
        await self.mongo.close()

    async def nats(self) -> NatsClient:
        """A connection to look at streams with; waits for its server."""
        if self._nats is None:
            self._nats = await nats.connect(
                self.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_ignore
            )
        return self._nats

    # Services and watchers

    def service(
        self, name: str = "service", *, trap: Trap | None = None, nats_url: str | None = None, **settings: object
    ) -> Service:
        """A service on this stage's servers, not started. All share one registry. `settings`: CHANGEWIRE_ ones;
        `nats_url` leads to the stage's server in another way, such as through a proxy."""
        environment = self.environment(**settings)
        if nats_url is not None:
            environment["NATS_URL"] = nats_url
        service = Service(name, self._workdir, environment, trap=trap)
        self._services.append(service)
        return service

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment of a service, and of a command that is to see what it sees."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if (
                not name.startswith("CHANGEWIRE_") or name == "CHANGEWIRE_CODEC"
            )  # the tests may be run on either encoder
            and name not in ("LOG_LEVEL", "CONFIG_FILE", "PYTHONDONTWRITEBYTECODE")
        }
        asked = {"STATE_DB": f"state_{self._unique}", "LOG_FORMAT": "json", "RECONCILE_SECONDS": 0.5, **settings}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": bytecode().name,
            "MONGO_URI": self.mongo_uri,
            "NATS_URL": self.nats_url,
            **{f"CHANGEWIRE_{name.upper()}": str(value) for name, value in asked.items()},
        }

    def described(self, **sink: object) -> dict[str, Any]:
        """The watcher of `collection`, as it is posted."""
        return {
            "name": self.watcher,
            "source": {"database": self.database, "collection": "things"},
            "sink": {"stream": self.stream, **sink},
            "checkpoint": {"database": f"tokens_{self._unique}", "collection": "things"},
        }

    async def add(self, service: Service, *, running: bool = True, **sink: object) -> None:
        """Add the watcher once the service takes it, and wait until it runs."""
        await until(lambda: self.takes(service), f"{service.name} is ready")
        await service.call("POST", "/watchers", self.described(**sink), status=201)
        if running:
            await service.until_state(self.watcher, "RUNNING")

    @staticmethod
    async def takes(service: Service) -> bool:
        """Whether the service takes changing calls by now."""
        return (await service.call("GET", "/readyz")).status_code == 200

    async def checkpoint(self) -> dict[str, Any] | None:
        """The watcher's stored position."""
        found = await self.mongo[f"tokens_{self._unique}"]["things"].find_one({}, sort=[("_id", -1)])
        return None if found is None else dict(found)

    # Changes

    async def write(self, count: int, *, at_once: int = 40, pause: float = 0.0) -> None:
        """Make `count` changes of all four kinds, `at_once` in one command, with a `pause` in seconds between these."""
        alive, made = self._alive, 0
        while made < count:
            requests: list[Any] = []
            changes: list[Change] = []
            for _ in range(min(at_once, count - made)):
                self._numbers += 1
                number = self._numbers
                kind = ("insert", "insert", "insert", "update", "insert", "replace", "insert", "delete")[number % 8]
                if kind == "insert" or len(alive) < 4:
                    requests.append(InsertOne({"_id": number, "n": number, "text": "x" * 200}))
                    changes.append(Change("insert", number, number))
                    alive.append(number)
                elif kind == "update":
                    requests.append(UpdateOne({"_id": alive[-1]}, {"$set": {"n": number}}))
                    changes.append(Change("update", alive[-1], number))
                elif kind == "replace":
                    requests.append(ReplaceOne({"_id": alive[-2]}, {"n": number, "replaced": True}))
                    changes.append(Change("replace", alive[-2], number))
                else:
                    requests.append(DeleteOne({"_id": alive[0]}))
                    changes.append(Change("delete", alive.pop(0), None))
            await self.collection.bulk_write(requests, ordered=True)
            self.written.extend(changes)
            made += len(changes)
            await asyncio.sleep(pause)

    async def write_through_failures(self, count: int, *, at_once: int = 25, pause: float = 0.02) -> None:
        """Insert `count` documents while mongod dies and comes back: what failed is looked up and gone on from."""
        first = self._numbers + 1
        self._numbers += count
        last, number = self._numbers, first
        while number <= last:
            batch = range(number, min(number + at_once, last + 1))
            try:
                await self.collection.insert_many([{"_id": n, "n": n, "text": "x" * 200} for n in batch], ordered=True)
                number = batch[-1] + 1
            except PyMongoError:
                number = await self._goes_on_at(first)
            await asyncio.sleep(pause)
        self.written.extend(Change("insert", n, n) for n in range(first, last + 1))

    async def _goes_on_at(self, first: int) -> int:
        while True:
            try:
                newest = await self.collection.find_one({}, sort=[("_id", -1)])
            except PyMongoError:
                await asyncio.sleep(POLL_SECONDS)
                continue
            return first if newest is None else max(first, int(newest["_id"]) + 1)

    @asynccontextmanager
    async def load(self, *, at_once: int = 20, pause: float = 0.05) -> AsyncIterator[None]:
        """Let changes be made, without an end, beside what the test does within the block."""
        over = False

        async def write() -> None:
            while not over:
                await self.write(at_once, at_once=at_once, pause=pause)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            yield
            over = True

    # What arrived

    async def length(self, stream: str = "") -> int:
        """How many messages the stream holds; 0 where there is none, or no answer."""
        jetstream = (await self.nats()).jetstream(timeout=2)
        try:
            return int((await jetstream.stream_info(stream or self.stream)).state.messages)
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError):
            return 0

    async def until_length(self, count: int, *, stream: str = "", within: float = 40) -> None:
        """Wait until the stream holds that many messages."""
        there = 0

        async def long_enough() -> bool:
            nonlocal there
            there = await self.length(stream)
            return there >= count

        try:
            await until(long_enough, "", within=within)
        except AssertionError:
            states = [f"{each.name} {await each.status(self.watcher)}" for each in self._services if each.running]
            raise AssertionError(f"{there} of {count} messages within {within:g} s; {states}") from None

    async def messages(self, stream: str = "") -> list[Message]:
        """The whole stream, from its first message to its last."""
        jetstream = (await self.nats()).jetstream(timeout=10)
        left = (await jetstream.stream_info(stream or self.stream)).state.messages
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True, max_waiting=10
        )
        reader = await jetstream.pull_subscribe(
            "", stream=stream or self.stream, config=config, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        found: list[Message] = []
        while len(found) < left:
            for each in await reader.fetch(min(FETCH, left - len(found)), timeout=10):
                sequence = each.metadata.sequence.stream
                found.append(Message(sequence, each.subject, each.headers or {}, each.data))
        await reader.unsubscribe()
        return found

    async def check(self, *, within: float = 40, epoch: int = 0) -> list[Message]:
        """Wait for as many messages as there were changes, end every service, and compare: each once, in order."""
        await self.until_length(len(self.written), within=within)
        for service in self._services:
            if service.running:
                service.thaw()
                assert await service.terminate() == 0, service.log_tail()
        messages = await self.messages()
        assert_same(self.written, [message.change for message in messages])
        ids = [message.id for message in messages]
        assert ids == sorted(set(ids)), "the ids do not grow from message to message"
        assert {message.subject for message in messages} <= {
            f"{self.stream}.{operation}" for operation in ("insert", "update", "replace", "delete")
        }
        return messages


def assert_same(written: Sequence[Change], arrived: Sequence[Change]) -> None:
    """Compare what happened with what arrived, and say in words what is wrong."""
    if list(written) == list(arrived):
        return
    counts = Counter(arrived)
    lost = [change for change in written if change not in counts]
    doubled = [change for change, count in counts.items() if count > 1]
    unknown = [change for change in counts if change not in set(written)]
    first = next((i for i, (a, b) in enumerate(zip(written, arrived, strict=False)) if a != b), None)
    raise AssertionError(
        f"{len(written)} changes, {len(arrived)} messages: {len(lost)} lost {lost[:3]}, {len(doubled)} doubled "
        f"{doubled[:3]}, {len(unknown)} unknown {unknown[:3]}; they part at index {first}"
    )


async def _ignore(_: Exception) -> None:
    """Streams are looked at while their server is down; nats-py would print each failure."""


@asynccontextmanager
async def staged(mongo_uri: str, nats_url: str, workdir: Path, unique: str) -> AsyncIterator[Stage]:
    """A stage that is cleared away afterwards."""
    async with AsyncExitStack() as stack:
        stage = Stage(mongo_uri, nats_url, workdir, unique)
        stack.push_async_callback(stage.close)
        yield stage


# The service with a trap in it


@dataclass(frozen=True)
class Trap:
    """One exact moment in the service's life, at which the process sends itself a signal.

    `moment` is one of MOMENTS, `nth` which time it has to come, from 1 on, `signal` KILL, or STOP for a zombie.
    """

    moment: str
    nth: int = 1
    signal: str = "KILL"

    def __post_init__(self) -> None:
        assert self.moment in MOMENTS, self.moment

    def __str__(self) -> str:
        return f"{self.moment}/{self.nth}/{self.signal}"


MOMENTS = (
    "before-first-position",  # nothing is stored of a new watcher but the watcher itself
    "after-first-position",  # its start is stored, no event is read yet
    "before-publish",  # a batch is encoded, nothing is sent
    "publish-fails",  # the nth attempt, all before it having failed
    "before-read-back",  # a batch is stored, its acknowledgement was lost, and nobody has looked yet
    "after-publish",  # a batch is acknowledged, nothing has been done with that
    "before-checkpoint",  # about to be stored
    "after-checkpoint",
    "before-letter",  # a change is about to be set aside
    "after-letter",  # it is, and nothing has been done with that
    "before-receipt",  # a dead letter is about to be replayed
    "after-receipt",
    "before-removal",  # it is replayed, and about to be removed
    "after-removal",
)


def spring(trap: Trap) -> None:
    """Patch the adapters of this process so that the trap springs."""
    from app.domain.errors import OutcomeUnknown, SinkUnavailable
    from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
    from app.jetstream.sink import JetStreamSink
    from app.mongodb.checkpoint_store import MongoCheckpointStore

    times = 0
    lost = False

    def came() -> bool:
        nonlocal times
        times += 1
        return times == trap.nth

    def fire() -> None:
        os.kill(os.getpid(), getattr(signal, f"SIG{trap.signal}"))

    def patch(owner: type, name: str, moment: Iterable[str], wrapped: Callable[..., Any]) -> None:
        if trap.moment in moment:
            original = getattr(owner, name)

            async def method(self: Any, *arguments: Any, **named: Any) -> Any:
                return await wrapped(functools.partial(original, **named), self, *arguments)

            setattr(owner, name, method)

    async def around(original: Any, self: Any, *arguments: Any) -> Any:
        due = came()
        if due and trap.moment.startswith("before"):
            fire()
        result = await original(self, *arguments)
        if due and trap.moment.startswith("after"):
            fire()
        return result

    async def failing(original: Any, self: Any, *arguments: Any) -> Any:
        if came():
            fire()
        elif times < trap.nth:
            raise SinkUnavailable("the trap says that there is no connection")
        return await original(self, *arguments)

    async def unacknowledged(original: Any, self: Any, *arguments: Any) -> Any:
        nonlocal lost
        result = await original(self, *arguments)
        if came():
            lost = True
            raise OutcomeUnknown("the trap has eaten the acknowledgement")
        return result

    async def reading_back(original: Any, self: Any) -> Any:
        nonlocal lost
        if lost:
            lost = False
            fire()
        return await original(self)

    patch(MongoCheckpointStore, "create", ("before-first-position", "after-first-position"), around)
    patch(MongoCheckpointStore, "advance", ("before-checkpoint", "after-checkpoint"), around)
    patch(JetStreamDeadLetterQueue, "store", ("before-letter", "after-letter"), around)
    patch(JetStreamDeadLetterQueue, "keep_receipt", ("before-receipt", "after-receipt"), around)
    patch(JetStreamDeadLetterQueue, "remove", ("before-removal", "after-removal"), around)
    patch(JetStreamSink, "publish", ("before-publish", "after-publish"), around)
    patch(JetStreamSink, "publish", ("publish-fails",), failing)
    patch(JetStreamSink, "publish", ("before-read-back",), unacknowledged)
    patch(JetStreamSink, "tail", ("before-read-back",), reading_back)


def main() -> int:
    """Set the trap and run the command line."""
    moment, nth, name = os.environ.pop("TRAP").split("/")
    spring(Trap(moment, int(nth), name))
    from app.__main__ import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
