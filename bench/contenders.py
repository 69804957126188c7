"""What is measured: a program that brings changes to a stream, and Changewire, this one or another version of it.

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
from collections.abc import Callable, Sequence
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

    async def up(self, program: Program) -> None:
        """Wait until a process has started in every part, where it can be asked."""
        del program

    async def way(self, places: Sequence[Place], program: Program) -> str:
        """How a running one publishes, where it can be asked; else nothing."""
        del places, program
        return ""


class Changewire(Contender):
    """The service of this repository, with its defaults: `changewire serve`, watchers added over HTTP."""

    name = "changewire"
    what = "the whole change event as relaxed Extended JSON; once, in order"

    codec: native.Wish = "auto"

    def __init__(self, tree: Path = ROOT) -> None:
        self._tree = tree
        self._port = 0

    def environment(self, stage: Stage, database: str) -> dict[str, str]:
        """The settings that it runs with, its state beside a database; no .env and no variable can be in the way."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
        return {
            **{name: value for name, value in ours.items() if name not in ("CONFIG_FILE", "LOG_LEVEL")},
            "PYTHONPATH": str(self._tree),
            "MONGO_URI": stage.mongo.uri,
            "NATS_URL": stage.nats.url,
            "CHANGEWIRE_STATE_DB": f"{database}_state",
            "CHANGEWIRE_CODEC": self.codec,
        }

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        self._port = self._port or free_port()
        environment = self.environment(stage, places[0].database) | {"SERVER_ADDR": f"127.0.0.1:{self._port}"}
        # Started where no connector.yaml can be in the way.
        return Program([SERVICE_PYTHON, "-P", "-m", "app", "serve"], environment, stage.directory, self.name)

    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        async with self.start(stage, places) as program:
            await self._until(program, "/readyz", lambda answer: True)
            for place in places:
                watcher = {
                    "name": place.stream,
                    "source": {"database": place.database, "collection": place.collection},
                    "sink": {"stream": place.stream, "replicas": stage.replicas},
                    "checkpoint": {"database": places[0].database, "collection": f"token_{place.stream}"},
                }
                await asyncio.to_thread(self._call, "POST", "/watchers", watcher)
            await self.running(stage, places, program)

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        del stage
        await self._until(program, "/watchers?state=RUNNING", lambda answer: len(answer) == len(places))

    async def up(self, program: Program) -> None:
        await self._until(program, "/readyz", lambda answer: True)

    @property
    def port(self) -> int:
        """Where a started one answers over HTTP."""
        return self._port

    async def answer(self, program: Program, path: str) -> Any:
        """What a started one answers to GET; None while it does not listen or says 503. Raises Incomplete."""
        program.check()
        try:
            return await asyncio.to_thread(self._call, "GET", path, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise Incomplete(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error
        except OSError:
            pass
        return None

    async def way(self, places: Sequence[Place], program: Program) -> str:
        """What the service says of the first of its watchers: the server and the stream decide it."""
        status = await self._until(program, f"/watchers/{places[0].stream}", _mode)
        return str(_mode(status))

    async def _until(self, program: Program, path: str, good: Callable[[Any], Any]) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while True:
            answer = await self.answer(program, path)
            if answer is not None and good(answer):
                return answer
            if time.monotonic() > deadline:
                raise Incomplete(f"{path} is not as it should be after {START_SECONDS} s\n{program.words()}")
            await asyncio.sleep(0.02)

    def _call(self, method: str, path: str, body: Any = None, *, timeout: float = 10) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with _DIRECT.open(request, timeout=timeout) as answer:
            return json.loads(answer.read() or b"null")


class InPython(Changewire):
    """Changewire with the encoder that it does not use by itself where the native one was built."""

    name = "changewire-python"
    what = "the same; encoded in Python"
    codec: native.Wish = "python"


class Version(Changewire):
    """Changewire out of another tree: an older version, or one that is being tried."""

    what = "the same; the version in its own tree"

    def __init__(self, name: str, tree: Path) -> None:
        super().__init__(tree)
        self.name = name

    @classmethod
    def named(cls, text: str) -> "Version":
        """Of `NAME=DIRECTORY`. Raises ValueError."""
        name, _, directory = text.partition("=")
        tree = Path(directory).resolve()
        if not is_name(name) or not (tree / "app" / "__main__.py").exists():
            raise ValueError(f"{text!r} is not NAME=DIRECTORY, with a name of letters, digits, - and _, and app/ in it")
        return cls(name, tree)


def is_name(text: str) -> bool:
    """Whether a contender may be called so."""
    return text.replace("-", "").replace("_", "").isalnum()


def _mode(watcher: Any) -> Any:
    return watcher["status"]["publish_mode"]
