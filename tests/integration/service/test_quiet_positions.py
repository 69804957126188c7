"""A watcher without changes, while others write the oplog full again and again: its stored position stays inside."""

import asyncio
import threading
import time

import pytest

from tests import oplog
from tests.conftest import MakeMongo
from tests.live import Live, until

PER_SECOND = 1_000_000
"""Bytes written: the oplog of 20 MB turns over every twenty seconds or so."""
TURNOVERS = 2


class Load(threading.Thread):
    """Writes to a collection that nobody watches, steadily, and looks at the stored positions and the oplog."""

    def __init__(self, live: Live) -> None:
        super().__init__(name="load")
        self.live = live
        self.ended = threading.Event()
        self.first = self.began = oplog.first(self.live.mongo)
        self.behind: list[str] = []
        self.error: BaseException | None = None

    async def turned_over(self) -> None:
        """Wait until nothing is left of what the oplog holds now."""
        now = self.live.mongo.admin.command("hello")["operationTime"]
        await until(lambda: self.error is not None or self.first > now, seconds=90)

    def run(self) -> None:
        try:
            filler, due = self.live.mongo["filler"]["filler"], time.monotonic()
            while not self.ended.is_set():
                for number in range(4):
                    filler.replace_one({"_id": number}, {"text": "x" * (PER_SECOND // 8)}, upsert=True)
                self.first = oplog.first(self.live.mongo)
                for one in self.live.positions.find():
                    if one["clusterTime"] < self.first:
                        self.behind.append(f"{one['_id']} is at {one['clusterTime']}, the oplog at {self.first}")
                due = max(due + 0.5, time.monotonic())
                self.ended.wait(due - time.monotonic())
        except BaseException as error:
            self.error = error
            raise


@pytest.mark.long
async def test_a_quiet_position_stays_inside_an_oplog_that_turns_over_within_seconds(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    mongo = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    # So little is left of such an oplog that it would be noted.
    async with Live(mongo.uri, nats_url, unique, CHANGEWIRE_MIN_HEADROOM_SECONDS="0") as live:
        await live.add()
        await live.add("never", source={"collection": f"never_{unique}"}, sink={"stream": f"NEVER_{live.stream}"})
        live.insert(1)
        await live.seen("1")
        load = Load(live)
        load.start()
        try:
            for _ in range(TURNOVERS):
                await load.turned_over()
        finally:
            load.ended.set()
            await asyncio.to_thread(load.join)
        assert (load.error, load.behind) == (None, [])
        assert load.first > load.began
        as_it_was = list(live.positions.find())
        assert len(as_it_was) == 2
        await live.stop()
        for one in as_it_was:  # as after a crash: nothing was stored at the end
            live.positions.replace_one({"_id": one["_id"]}, one)
        await live.start()
        for name in ("orders", "never"):
            assert (await live.reaches("RUNNING", name))["status"]["notes"] == []
        live.insert(2)
        await live.seen("1", "2")
