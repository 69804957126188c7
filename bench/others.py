"""What Changewire is measured beside: mq-bridge, what most people would write, and whatever else is named.

Everything that brings changes to a stream can be measured, if it reads MONGO_URI, NATS_URL and CONFIG_FILE (`Peer`).
"""

import asyncio
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

from app.devservers.servers import free_port
from bench import workload
from bench.contenders import ROOT, SERVICE_PYTHON, START_SECONDS, Contender, is_name
from bench.program import Program
from bench.stage import Incomplete, Place, Stage

STORE_SECONDS = 1
"""How long a program is given to store the position behind what it has published, before it is stopped."""


async def shown(stage: Stage, place: Place, program: Program) -> None:
    """Write documents until one arrives, since nobody tells that the program watches; then empty the stream."""
    deadline = time.monotonic() + START_SECONDS
    while not await stage.count([place]):
        program.check()
        if time.monotonic() > deadline:
            raise Incomplete(f"nothing is published\n{program.words()}")
        await asyncio.to_thread(stage.collection(place).insert_one, workload.order(-1))
        await asyncio.sleep(0.5)
    await asyncio.sleep(0.5)
    await stage.purge(place)


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
    only = "sees one collection, and inserts alone (`capture_new`)"
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
            await asyncio.sleep(STORE_SECONDS)

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        (place,) = places
        await shown(stage, place, program)


class Peer(Contender):
    """Any program that reads MONGO_URI, NATS_URL and, for its collections, a CONFIG_FILE like connector.yaml.

    It is prepared like mq-bridge: started, shown a document until one arrives, and stopped; then it has to go on where
    it stopped. The stream it makes itself; one of several replicas is there already. SERVER_ADDR names a free port, for
    those that serve HTTP.
    """

    def __init__(
        self, name: str, command: Sequence[str], what: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.what = name, what
        self._command = command
        self._environment = environment or {}

    @classmethod
    def named(cls, text: str) -> "Peer":
        """Of `NAME=COMMAND`; the command is split as a shell does, and no shell runs it. Raises ValueError."""
        name, _, command = text.partition("=")
        words = shlex.split(command)
        if not is_name(name) or not words:
            raise ValueError(f"{text!r} is not NAME=COMMAND, with a name of letters, digits, - and _")
        return cls(name, words, f"what `{words[0]}` makes")

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        path = stage.directory / f"{self.name}-{places[0].stream}.yaml"
        path.write_text(connector_yaml(places))
        environment = {
            **os.environ,
            **self._environment,
            "MONGO_URI": stage.mongo.uri,
            "NATS_URL": stage.nats.url,
            "CONFIG_FILE": str(path),
            "SERVER_ADDR": f"127.0.0.1:{free_port()}",
            "CHANGEWIRE_STATE_DB": f"{places[0].database}_state",  # for a Changewire of another version
        }
        return Program(self._command, environment, stage.directory, self.name)

    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        if stage.replicas > 1:
            for place in places:
                await stage.create_stream(place, allow_direct=True, allow_atomic=True)
        async with self.start(stage, places) as program:
            await self.running(stage, places, program)
            await asyncio.sleep(STORE_SECONDS)

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        for place in places:
            await shown(stage, place, program)


def connector_yaml(places: Sequence[Place]) -> str:
    """A mongodb-nats-connector configuration file for these places. JSON is YAML too, and every reader knows it."""
    collections = [
        {
            "dbName": place.database,
            "collName": place.collection,
            "tokensDbName": f"{place.database}_tokens",
            "tokensCollName": place.collection,
            "streamName": place.stream,
        }
        for place in places
    ]
    return json.dumps({"connector": {"log": {"level": "info"}, "collections": collections}}, indent=2) + "\n"


def baseline() -> Peer:
    """What most people would write (`single.py`)."""
    what = "the change event as relaxed Extended JSON; each is awaited before the next"
    return Peer("one-by-one", [SERVICE_PYTHON, "-m", "bench.single"], what, {"PYTHONPATH": str(ROOT)})
