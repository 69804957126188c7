"""Debezium Server beside the fan-out: one change stream for a database, one JetStream stream, at least once.

Nothing of it is fetched here: `--debezium DIRECTORY` names one that was unpacked. It runs by the java of JAVA_HOME, or
of the path, and with its defaults, except that it publishes asynchronously, sends no schemas, and stores its position
each second.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from app.devservers.servers import free_port
from bench import workload
from bench.contenders import Contender
from bench.program import Program
from bench.stage import Incomplete, Place, Stage

START_SECONDS = 90
STORE_SECONDS = 3
"""How long it is given to store the position behind what it has published, before it is stopped."""


class Debezium(Contender):
    """It watches all collections of the first place's database, and fills that place's stream."""

    name = "debezium"
    what = "before, after and source as JSON; at least once"

    def __init__(self, directory: Path) -> None:
        self._home = directory

    @classmethod
    def at(cls, text: str) -> "Debezium":
        """The one that was unpacked there. Raises ValueError."""
        directory = Path(text).resolve()
        if not [*directory.glob("debezium-server-*runner.jar")]:
            raise ValueError(f"{text!r} holds no debezium-server-*runner.jar")
        return cls(directory)

    def start(self, stage: Stage, places: Sequence[Place]) -> Program:
        place = places[0]
        home = stage.directory / f"debezium-{place.stream}"
        (home / "config").mkdir(parents=True, exist_ok=True)
        settings = {
            "debezium.sink.type": "nats-jetstream",
            "debezium.sink.nats-jetstream.url": stage.nats.url,
            "debezium.sink.nats-jetstream.create-stream": "false",
            "debezium.sink.nats-jetstream.async.enabled": "true",
            "debezium.source.connector.class": "io.debezium.connector.mongodb.MongoDbConnector",
            "debezium.source.mongodb.connection.string": stage.mongo.uri,
            "debezium.source.topic.prefix": place.stream,
            "debezium.source.capture.scope": "database",
            "debezium.source.capture.target": place.database,
            "debezium.source.database.include.list": place.database,
            "debezium.source.snapshot.mode": "no_data",
            "debezium.source.offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "debezium.source.offset.storage.file.filename": str(home / "offsets.dat"),
            "debezium.source.offset.flush.interval.ms": "1000",
            "debezium.format.schemas.enable": "false",
            "quarkus.http.port": str(free_port()),
            "quarkus.log.level": "WARN",
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (home / "config" / "application.properties").write_text(text)
        (runner,) = self._home.glob("debezium-server-*runner.jar")
        java = Path(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
        located = f"-Dquarkus.config.locations={home / 'config' / 'application.properties'}"
        command = [str(java), located, "-cp", f"{runner}:{self._home}/lib/*", "io.debezium.server.Main"]
        return Program(command, dict(os.environ), home, self.name)

    async def prepare(self, stage: Stage, places: Sequence[Place]) -> None:
        await stage.create_stream(places[0], subjects=[f"{places[0].stream}.>"])
        async with self.start(stage, places) as program:
            await self.running(stage, places, program)
            await asyncio.sleep(STORE_SECONDS)
        await stage.purge(places[0])

    async def running(self, stage: Stage, places: Sequence[Place], program: Program) -> None:
        """Write documents until one arrives, since it does not tell that it watches."""
        place, deadline = places[0], time.monotonic() + START_SECONDS
        before = await stage.count([place])
        while await stage.count([place]) == before:
            program.check()
            if time.monotonic() > deadline:
                raise Incomplete(f"nothing is published\n{program.words()}")
            await asyncio.to_thread(stage.collection(place).insert_one, workload.order(-1))
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
