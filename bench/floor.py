"""What reading, encoding and publishing take where nothing else is done: `python -m bench.floor ASKED`, a process.

It is made of the service's own parts, as the service puts them together: its change source, its encoders, its sink. It
has its settings from the same variables. First it reads a backlog and drops it; then it reads it again, and encodes and
publishes what it holds. Each step is measured from its first fifth on. Prints JSON: the steps, and the publish mode.

Not its business: what waits between the steps, the checkpoints and the metrics. These are what a drain takes beyond.
"""

import asyncio
import gc
import json
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import uvloop

from app.config import logging
from app.config.settings import Settings, load
from app.domain.events import Change
from app.domain.watcher import Start, Watcher, from_document
from app.formats.extended_json import tune_gc
from app.jetstream.account import JetStream
from app.jetstream.connection import NatsConnection
from app.jetstream.options import nats_options
from app.main import codec_of
from app.metrics.observer import PrometheusObserver
from app.mongodb.deployment import MongoDeployment
from app.pipeline.batch_encoder import BatchEncoder
from app.pipeline.run_statistics import RunStatistics
from app.ports import ChangeSource, EventSink, SourceBatch
from bench.procfs import Moment

RUN_UP = 0.2
PYTHON_EVENTS = 10_000
"""The encoder in Python is given so many at most: it takes long, and a rate does not depend on how many there are."""
WAIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to read and to publish, and how many events wait there. `at` is seconds since 1970, before the first."""

    database: str
    collection: str
    stream: str
    replicas: int
    at: float
    events: int
    pids: dict[str, list[int]]
    """The servers whose processor time is read, by name."""


@dataclass(frozen=True, slots=True)
class Floor:
    """One step: events a second, and the processor time per event in microseconds, by process."""

    events_per_second: float
    cpu_us: dict[str, float]


class Watch:
    """Measures a step over so many events, from the first fifth of them on."""

    def __init__(self, asked: Asked, events: int) -> None:
        self._pids = asked.pids
        self._events = events
        self._count = 0
        self._began: tuple[int, Moment] | None = None

    def passed(self, count: int) -> None:
        """So many more are through."""
        self._count += count
        if self._began is None and self._count >= self._events * RUN_UP:
            self._began = self._count, self._now()

    def floor(self) -> Floor:
        """All are through."""
        assert self._began is not None, "nothing has passed"
        counted, before = self._began
        span, measured = self._now().since(before), max(1, self._count - counted)
        cpu = {name: seconds * 1e6 / measured for name, seconds in span.used.items()}
        return Floor(measured / max(span.seconds, 1e-6), {"service": cpu.pop("bench"), **cpu})

    def _now(self) -> Moment:
        return Moment.now(self._pids)


async def read(source: ChangeSource, start: str, asked: Asked, watch: Watch, keep: list[SourceBatch] | None) -> None:
    """Read all events from a token on; `keep` takes them. Raises TimeoutError where they do not come."""
    await source.open(start)
    count = 0
    async with asyncio.timeout(WAIT_SECONDS + asked.events / 1000):
        while count < asked.events:
            batch = await source.read()
            count += len(batch.events)
            watch.passed(len(batch.events))
            if keep is not None and batch.events:
                keep.append(batch)
    await source.close()


async def encode(
    encoder: BatchEncoder, batches: Iterable[SourceBatch], watch: Watch, keep: list[Sequence[Change]] | None = None
) -> None:
    """Encode batches as a capture does; `keep` takes the changes."""
    for batch in batches:
        changes = await encoder.encode(replace(batch), "", "")  # of the copy, since it takes the events away
        watch.passed(len(changes))
        if keep is not None:
            keep.append(changes)


async def publish(sink: EventSink, batches: Sequence[Sequence[Change]], watch: Watch) -> None:
    """Publish encoded batches as a capture does for which the next one always waits: several at once where it can."""
    fence = (await sink.tail()).last_sequence
    under_way: deque[tuple[int, asyncio.Future[int]]] = deque()
    for number, changes in enumerate(batches, 1):
        if not sink.pipelined:
            fence = await sink.publish(changes, fence)
            watch.passed(len(changes))
            continue
        await sink.ready(changes)
        while under_way and under_way[0][1].done():
            count, stored = under_way.popleft()
            stored.result()
            watch.passed(count)
        under_way.append((len(changes), sink.send(changes, fence, more=number < len(batches))))
        fence += len(changes)
    for count, stored in under_way:
        await stored
        watch.passed(count)


def head(batches: Sequence[SourceBatch], events: int) -> list[SourceBatch]:
    """The first batches, of so many events together at least where there are as many."""
    taken, count = [], 0
    for batch in batches:
        if count >= events:
            break
        taken.append(batch)
        count += len(batch.events)
    return taken


async def measure(settings: Settings, watcher: Watcher, asked: Asked) -> dict[str, Any]:
    """Measure every step; the last one leaves the events on the stream."""
    observer = PrometheusObserver(version="bench")
    mongo = MongoDeployment(
        settings.mongo_uri.get_secret_value(), state_database=settings.state_db, observer=observer,
        batch_size=settings.batch_size,
    )  # fmt: skip
    connection = NatsConnection(nats_options(settings))
    connection.start()
    await connection.ready()
    source, sink = mongo.source(watcher), JetStream(connection).sink(watcher)
    try:
        await source.prepare()
        await sink.prepare(may_create=True)
        start = await source.locate(Start(at="timestamp", value=asked.at))
        watch = Watch(asked, asked.events)
        await read(source, start, asked, watch, None)
        result = {"reading": watch.floor()}

        batches: list[SourceBatch] = []
        await read(source, start, asked, Watch(asked, asked.events), batches)
        changes: list[Sequence[Change]] = []
        for wish in ("native", "python") if codec_of(settings).transcode is not None else ("python",):
            codec = codec_of(settings.model_copy(update={"codec": wish}))
            encoder = BatchEncoder(watcher, codec, sink, RunStatistics(), observer)
            some = batches if wish == "native" else head(batches, PYTHON_EVENTS)
            watch = Watch(asked, sum(len(batch.events) for batch in some))
            await encode(encoder, some, watch)
            result[f"encoding, {wish}"] = watch.floor()
            if not changes:
                await encode(encoder, batches, Watch(asked, asked.events), changes)
        batches.clear()
        gc.collect()
        gc.freeze()  # what is kept for long here is not what the service keeps

        watch = Watch(asked, asked.events)
        await publish(sink, changes, watch)
        result["publishing"] = watch.floor()
        return {"floors": {name: asdict(each) for name, each in result.items()}, "mode": sink.mode}
    finally:
        await source.close()
        await sink.close()
        await connection.close()
        mongo.close()


async def main(asked: Asked) -> None:
    """Measure, and tell."""
    settings = load()
    logging.configure("ERROR", settings.log_format, secrets=settings.secrets)
    watcher = from_document(
        {
            "name": asked.stream,
            "source": {"database": asked.database, "collection": asked.collection},
            "sink": {"stream": asked.stream, "replicas": asked.replicas},
            "checkpoint": {"database": asked.database, "collection": "token"},
        }
    )
    json.dump(await measure(settings, watcher, asked), sys.stdout)


if __name__ == "__main__":
    tune_gc()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Asked(**json.loads(sys.argv[1]))))
