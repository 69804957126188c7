"""What is measured: a program that brings changes to a stream, and Changewire, whole or with parts exchanged.

All run as processes of their own. `prepare` brings one to the point where changes written from now on wait for it, and
leaves it stopped; `start` starts it again. The others are in `others.py`.
"""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.devservers.servers import free_port
from app.formats import native
from bench.program import Program
from bench.stage import Incomplete, Place, Stage

START_SECONDS = 60
SERVICE_PYTHON = os.environ.get("BENCH_SERVICE_PYTHON", sys.executable)
"""The interpreter that runs the service. `make bench` names one with the service's dependencies alone, as an
installation has them: pymongo and structlog import more where they find more, which takes memory."""
ROOT = Path(__file__).resolve().parent.parent
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Contender(ABC):
    """A program that brings a collection's changes to a stream."""

    name: str
    what: str
    only: str | None = None
    """What it cannot do, and why it is not measured there."""

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

    module = "app"
    codec: native.Wish = "auto"

    def __init__(self) -> None:
        self._port = 0

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        self._port = self._port or free_port()
        # Started where no .env and no connector.yaml can be in the way.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        environment = {
            **{name: value for name, value in ours.items() if name not in ("CONFIG_FILE", "LOG_LEVEL")},
            "PYTHONPATH": str(ROOT),
            "MONGO_URI": stage.mongo.uri,
            "NATS_URL": stage.nats.url,
            "SERVER_ADDR": f"127.0.0.1:{self._port}",
            "CHANGEWIRE_STATE_DB": f"{places[0].database}_state",
            "CHANGEWIRE_CODEC": self.codec,
        }
        return Program([SERVICE_PYTHON, "-m", self.module, "serve"], environment, stage.directory, self.name)

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


class InPython(Changewire):
    """Changewire with the encoder that it does not use by itself where the native one was built."""

    name = "changewire-python"
    what = "the same; encoded in Python"
    codec: native.Wish = "python"


class Limit(Changewire):
    """Changewire without any encoding (`limit.py`): what its reader and its publisher can do."""

    name = "limit"
    what = "the event's BSON as it came; otherwise as changewire"
    module = "bench.limit"
