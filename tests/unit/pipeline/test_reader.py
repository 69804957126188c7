"""Reading within the memory budget: when the next read begins, and what ends it."""

import asyncio
from dataclasses import replace

import pytest

from app.domain.errors import HistoryLost, SourceUnavailable
from app.domain.status import Reads
from app.pipeline.batch_encoder import YIELD_BYTES
from app.pipeline.memory_budget import MemoryBudget, Share
from app.pipeline.reader import Reader
from app.ports import SourceBatch
from tests.fakes import FakeSource, FakeStream, mark_token
from tests.properties.test_capture_properties import Writer
from tests.unit.deployment import Fakes, until

SMALL, LARGE = 10, YIELD_BYTES + 1


class Script(FakeSource):
    """Brings batches of scripted sizes, and says how many reads were begun."""

    def __init__(self, *script: int | Exception) -> None:
        super().__init__(Fakes().oplog)
        self._script = list(script)
        self.begun = 0
        self.reads = Reads(shared=False)

    async def read(self) -> SourceBatch:
        self.begun += 1
        await asyncio.sleep(0)
        if not self._script:
            await asyncio.Event().wait()
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return SourceBatch([b"x" * step] if step else [], mark_token(self.begun), 1_000 + self.begun, step)


def reader(source: Script, share: Share | None = None) -> tuple[Reader, Writer]:
    writer = Writer(Fakes().oplog, FakeStream(), {}, 10)
    run = writer.work()
    run = replace(run, ports=replace(run.ports, source=source))
    return Reader(run, share or MemoryBudget().share()), writer


async def test_while_a_large_batch_is_encoded_the_next_one_is_read_and_after_a_small_one_it_is_not() -> None:
    for size, begun in ((LARGE, 2), (SMALL, 1)):
        source = Script(size)
        one, _ = reader(source)
        batch = await one.next()
        assert batch is not None
        assert batch.size == size
        await asyncio.sleep(0)
        assert source.begun == begun
        await one.close()


async def test_what_is_read_is_held_and_the_next_read_waits_for_room() -> None:
    source, share = Script(SMALL, SMALL), MemoryBudget(total=SMALL).share()
    one, _ = reader(source, share)
    assert await one.next() is not None
    assert share.held == SMALL
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert source.begun == 1
    share.give_back(SMALL)
    assert await waiting is not None
    await one.close()


async def test_a_reply_tells_the_time_and_whether_the_server_waits_for_changes() -> None:
    one, writer = reader(Script(SMALL, 0))
    for caught_up, seconds in ((False, 1_001), (True, 1_002)):
        assert await one.next() is not None
        assert (writer.statistics.caught_up, writer.run_state.operation_time) == (caught_up, seconds)
    await one.close()


async def test_a_stop_ends_a_read_that_waits_for_the_server() -> None:
    source = Script()
    one, _ = reader(source)
    waiting = asyncio.create_task(one.next())
    await until(lambda: source.begun)
    one.stop()
    assert await waiting is None
    assert await one.next() is None
    await one.close()


async def test_a_history_that_is_lost_ends_the_reads_and_is_kept_for_later() -> None:
    one, _ = reader(Script(SMALL, HistoryLost("gone")))
    assert await one.next() is not None
    assert await one.next() is None
    assert isinstance(one.overtaken, HistoryLost)
    await one.close()


async def test_any_other_error_is_raised() -> None:
    one, _ = reader(Script(SourceUnavailable("no primary")))
    with pytest.raises(SourceUnavailable):
        await one.next()
    await one.close()


async def test_close_ends_what_is_under_way() -> None:
    source = Script(LARGE)
    one, _ = reader(source)
    before = asyncio.all_tasks()
    assert await one.next() is not None
    await one.close()
    assert asyncio.all_tasks() == before


async def test_a_nudge_brings_an_empty_batch_at_the_last_position_and_loses_none_that_is_under_way() -> None:
    source = Script(SMALL)
    one, _ = reader(source)
    first = await one.next()
    assert first is not None
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    one.nudge()
    nudged = await waiting
    assert nudged is not None
    assert (list(nudged.events), nudged.position, nudged.size) == ([], first.position, 0)
    assert source.begun == 2
    await one.close()


async def test_a_look_reads_on_and_tells_when_the_next_batch_is_there() -> None:
    source = Script(SMALL, SMALL)
    one, _ = reader(source)
    await one.next()
    assert not one.look()
    while not one.look():
        await asyncio.sleep(0)
    assert source.begun == 2
    batch = await one.next()
    assert batch is not None
    assert batch.size == SMALL
    await one.close()


async def test_nothing_is_read_ahead_where_there_is_no_room() -> None:
    source, share = Script(SMALL, SMALL), MemoryBudget(total=SMALL).share()
    one, _ = reader(source, share)
    await one.next()
    assert not one.look()
    assert source.begun == 1
    await one.close()
