"""What is measured: Changewire, and mq-bridge, the fastest other way from MongoDB to JetStream that could be found.

Both run as a process of their own. `prepare` brings one to the point where changes written from now on wait for it, and
leaves it stopped; `start` starts it again.
"""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app import native
from app.embedded import free_port
from bench import workload
from bench.stage import Incomplete, Place, Stage

START_SECONDS = 30
STOP_SECONDS = 20
SERVICE_PYTHON = os.environ.get("BENCH_SERVICE_PYTHON", sys.executable)
"""The interpreter that runs the service. `make bench` names one with the service's dependencies alone, as an
installation has them: pymongo and structlog import more where they find more, which takes memory."""
_ROOT = Path(__file__).resolve().parent.parent
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Program:
    """A running contender. Use it as an async context manager: it ends with the block."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], directory: Path, name: str) -> None:
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self.began = time.perf_counter()
            self._process = subprocess.Popen(
                command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.words())
        try:
            await self.stop()
        except BaseException:
            self._process.kill()
            raise

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and kill it where it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def check(self) -> None:
        """Raise Incomplete where it has ended by itself."""
        if self._process.poll() is not None:
            raise Incomplete(f"the process ended with {self._process.returncode}\n{self.words()}")

    def words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


class Contender(ABC):
    """A program that brings a collection's changes to a stream."""

    name: str
    what: str

    @abstractmethod
    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        """Start the process; it goes on where it stopped."""

    @abstractmethod
    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        """Make it known to the contender what to watch, from now on; it is stopped afterwards."""

    @abstractmethod
    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        """Wait until a started process watches all its places."""


class Changewire(Contender):
    """The service of this repository, with its defaults: `changewire serve`, watchers added over HTTP."""

    name = "changewire"
    what = "whole change event as relaxed Extended JSON; once, in order (atomic batches of up to 500)"

    def __init__(self, codec: native.Wish = "auto") -> None:
        self._port = 0
        self._codec = codec
        if codec == "python":
            self.name, self.what = f"{self.name}-python", f"{self.what}; encoded in Python"

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        self._port = self._port or free_port()
        # Started where no .env and no connector.yaml can be in the way.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        environment = {
            **{name: value for name, value in ours.items() if name not in ("CONFIG_FILE", "LOG_LEVEL")},
            "PYTHONPATH": str(_ROOT),
            "MONGO_URI": stage.mongo.uri,
            "NATS_URL": stage.nats.url,
            "SERVER_ADDR": f"127.0.0.1:{self._port}",
            "CHANGEWIRE_STATE_DB": f"{places[0].database}_state",
            "CHANGEWIRE_CODEC": self._codec,
        }
        return Program([SERVICE_PYTHON, "-m", "app", "serve"], environment, stage.directory, self.name)

    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        async with self.start(stage, places) as program:
            await self._until(program, "/readyz", lambda answer: True)
            for place in places:
                watcher = {
                    "name": place.stream,
                    "source": {"database": place.database, "collection": place.collection},
                    "sink": {"stream": place.stream},
                    "checkpoint": {"database": places[0].database, "collection": f"token_{place.stream}"},
                }
                await asyncio.to_thread(self._call, "POST", "/watchers", watcher)
            await self.running(stage, places, program)

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        del stage
        await self._until(program, "/watchers?state=RUNNING", lambda answer: len(answer) == len(places))

    async def _until(self, program: Program, path: str, good: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            program.check()
            try:
                if good(await asyncio.to_thread(self._call, "GET", path)):
                    return
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise Incomplete(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Incomplete(f"{path} is not as it should be after {START_SECONDS} s\n{program.words()}")
            await asyncio.sleep(0.02)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with _DIRECT.open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


_MQ_BRIDGE = """\
import json, signal, sys
from mq_bridge import Route
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
route = Route.from_config(json.loads(sys.argv[1]))
route.start()
signal.sigwait({signal.SIGTERM})
route.stop()
route.join()
"""


class MqBridge(Contender):
    """mq-bridge's MongoDB source (`capture_new`) and JetStream sink, its batch size as large as it is useful.

    It captures new changes only, but under a `cursor_id` it remembers where it stopped. So: start it, have it see one
    document (that stores its position), stop it, empty the stream. What is written then waits for it.
    """

    name = "mq-bridge"
    what = "the document alone as JSON; at least once, in random-id messages (batches of up to 1,000)"

    @staticmethod
    def installed() -> bool:
        return importlib.util.find_spec("mq_bridge") is not None

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        (place,) = places
        route = {
            "input": {
                "mongodb": {
                    "url": stage.mongo.uri,
                    "database": place.database,
                    "collection": place.collection,
                    "consume": "capture_new",
                    "cursor_id": "bench",
                }
            },
            "output": {"nats": {"url": stage.nats.url, "stream": place.stream, "subject": f"{place.stream}.insert"}},
            "batch_size": 1000,
        }
        command = [sys.executable, "-c", _MQ_BRIDGE, json.dumps(route)]
        return Program(command, dict(os.environ), stage.directory, self.name)

    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        (place,) = places
        await stage.create_stream(place)
        await asyncio.to_thread(stage.client[place.database].create_collection, place.collection)
        async with self.start(stage, places) as program:
            await self.running(stage, places, program)
            await asyncio.sleep(1)  # its position is stored behind the publish

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        """Nobody tells, so documents are written until one arrives; then the stream is emptied."""
        (place,) = places
        deadline = time.monotonic() + START_SECONDS
        while not await stage.count(place):
            program.check()
            if time.monotonic() > deadline:
                raise Incomplete(f"mq-bridge publishes nothing\n{program.words()}")
            await asyncio.to_thread(stage.collection(place).insert_one, workload.order(-1))
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        await stage.purge(place)


def encoders() -> list[Contender]:
    """Changewire with the encoder that it does not use by itself: the Python one, where the native one was built."""
    return [] if native.absence() else [Changewire("python")]


def contenders() -> list[Contender]:
    """Changewire, and mq-bridge where it is installed."""
    return [Changewire(), *([MqBridge()] if MqBridge.installed() else [])]
