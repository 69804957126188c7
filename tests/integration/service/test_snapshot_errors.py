"""What goes wrong while rows are read ends a read or the run, but never the watcher, and no row is lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from app.devservers.servers import MongoServer
from tests.conftest import MakeMongo
from tests.integration.service.test_consumed import consuming
from tests.integration.service.test_snapshots import begin, fill, now, until_ended
from tests.service import Message, Service, Stage, Trap, assert_same, staged, until
from tests.service.rows import check_rows, is_of_snapshot

WINDOW = "minSnapshotHistoryWindowInSeconds"
IN_A_CHUNK = Trap("before-rows", 5)
"""In the middle of the third chunk: the first two have 100 and 800 rows, this one a megabyte, which goes out as five
batches. A look at the stream would not do, as a small run may be over before the first one."""


@pytest_asyncio.fixture
async def server(make_mongo: MakeMongo) -> MongoServer:
    """A mongod whose commands can be made to fail."""
    return await make_mongo(args=["--setParameter", "enableTestCommands=1"])


@pytest_asyncio.fixture
async def breakable(server: MongoServer, nats_url: str, tmp_path: Path, unique: str) -> AsyncIterator[Stage]:
    async with staged(server.uri, nats_url, tmp_path, unique) as stage:
        yield stage


async def arrived(stage: Stage) -> list[Message]:
    """Make a last change, wait until it is on the stream, end the service, and return all messages."""
    await stage.write(8)
    await until(lambda: the_last_has_come(stage), "every change is on the stream", within=60)
    for service in stage._services:
        assert await service.terminate() == 0, service.log_tail()
    messages = await stage.messages()
    assert_same(stage.written, [each.change for each in messages if not is_of_snapshot(each)])
    return messages


async def the_last_has_come(stage: Stage) -> bool:
    newest = [each for each in (await stage.messages())[-3000:] if not is_of_snapshot(each)]
    return bool(newest and newest[-1].change == stage.written[-1])


async def fail_reads(stage: Stage, *, times: int, skip: int = 0, **how: Any) -> None:
    """Have the service's reads of rows fail so many times."""
    mode = {"times": times} if not skip else {"skip": skip}
    data = {"failCommands": ["find"], "appName": "changewire", "namespace": f"{stage.database}.things", **how}
    await stage.mongo.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})


async def failed_reads(stage: Stage) -> int:
    """How often reads have failed by now; what fails ends with this."""
    reply = await stage.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    return int(reply["count"])


@pytest.mark.long
@pytest.mark.parametrize(
    "how",
    [
        {"errorCode": 11601},  # Interrupted, as by killOp
        {"errorCode": 246},  # SnapshotUnavailable
        {"errorCode": 96},  # OperationFailed, of which nothing is known
        {"closeConnection": True},
    ],
    ids=lambda how: str(how.get("errorCode", "closed")),
)
async def test_what_passes_is_tried_again_and_the_changes_go_on(breakable: Stage, how: dict[str, Any]) -> None:
    stage = breakable
    before = await fill(stage, 3000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await stage.add(service)
    await fail_reads(stage, times=3, **how)
    async with stage.load():
        await begin(stage, service)
        await until_ended(stage, service)
    assert await failed_reads(stage) >= 3
    assert await service.state(stage.watcher) == "RUNNING"
    check_rows(before, await arrived(stage), await now(stage))


@pytest.mark.long
@pytest.mark.parametrize("code", [13, 241])
async def test_what_is_refused_for_good_ends_the_run_and_not_the_watcher(breakable: Stage, code: int) -> None:
    """Unauthorized, ConversionFailure: in the middle of the run."""
    stage = breakable
    before = await fill(stage, 15_000)
    stage._alive.extend(before)
    service = await stage.service(trap=Trap("after-plan", 2, "STOP")).start()
    await stage.add(service)
    async with stage.load():
        await begin(stage, service)
        await service.trapped()
        await fail_reads(stage, times=10_000, errorCode=code)
        service.thaw()
        seen = await until_ended(stage, service, "failed")
        assert "MongoDB" in seen["reason"]
        assert await failed_reads(stage) >= 1
        assert 0 < seen["documents"] < 15_000
        written = len(stage.written)
        await until(lambda: len(stage.written) > written + 100, "changes are made")
    assert await service.state(stage.watcher) == "RUNNING"
    again = await begin(stage, service)
    await until_ended(stage, service)
    messages = await arrived(stage)
    check_rows(before, messages, await now(stage), run=again)


async def test_rows_that_cannot_be_read_again_after_a_crash_do_not_fail_the_watcher(breakable: Stage) -> None:
    stage = breakable
    before = await fill(stage, 8000)
    service = await stage.service(trap=IN_A_CHUNK).start()
    await stage.add(service)
    await begin(stage, service)
    await service.trapped()
    await fail_reads(stage, times=10_000, errorCode=13)
    await service.start()
    await stage.write(100)
    await until_ended(stage, service, "failed")
    await failed_reads(stage)
    assert await service.state(stage.watcher) == "RUNNING"
    messages = await arrived(stage)
    after = await now(stage)
    rows = check_rows(before, messages, after, whole=False)
    assert 1000 <= rows < 8000


async def test_a_stepdown_in_the_middle_loses_nothing(breakable: Stage) -> None:
    stage = breakable
    before = await fill(stage, 8000)
    service = await stage.service(trap=replace(IN_A_CHUNK, signal="STOP")).start()
    await stage.add(service)
    await begin(stage, service)
    await service.trapped()
    with suppress(PyMongoError):
        await stage.mongo.admin.command({"replSetStepDown": 2, "force": True})
    service.thaw()

    async def primary() -> bool:
        try:
            return bool((await stage.mongo.admin.command("hello"))["isWritablePrimary"])
        except PyMongoError:
            return False

    await until(primary, "there is a primary again", within=40)
    await stage.write_through_failures(50)
    await until_ended(stage, service, within=90)
    check_rows(before, await arrived(stage), await now(stage))


# Where MongoDB has the time of a planned chunk no more


@pytest_asyncio.fixture
async def forgetful(make_mongo: MakeMongo, nats_url: str, tmp_path: Path, unique: str) -> AsyncIterator[Stage]:
    """A stage whose mongod can be read as it was a second ago at most."""
    server = await make_mongo(args=["--setParameter", f"{WINDOW}=1", "--syncdelay", "1"])
    async with staged(server.uri, nats_url, tmp_path, unique) as stage:
        yield stage


async def until_forgotten(stage: Stage, at: Timestamp) -> None:
    """Wait until MongoDB cannot be read as of a time, while changes are made."""

    async def gone() -> bool:
        await stage.write(10)
        concern = {"level": "snapshot", "atClusterTime": at}
        try:
            await stage.mongo[stage.database].command({"find": "things", "limit": 1, "readConcern": concern})
        except OperationFailure as error:
            return error.code in (239, 246)
        return False

    await until(gone, "MongoDB has forgotten that time", within=60)


async def killed_in_a_chunk(stage: Stage, service: Service, *, again: bool = False) -> None:
    """Wait until the service has died in the middle of a chunk, and start it, to die `again` perhaps, when MongoDB has
    forgotten the times of its chunks."""
    await service.trapped()
    at = (await stage.mongo.admin.command("hello"))["operationTime"]
    await until_forgotten(stage, at)
    if again:
        service.trap = IN_A_CHUNK
    await service.start()


async def test_a_chunk_whose_time_is_gone_goes_on_after_its_last_row_on_the_stream(forgetful: Stage) -> None:
    stage = forgetful
    before = await fill(stage, 12_000)
    service = await stage.service(trap=IN_A_CHUNK).start()
    await stage.add(service)
    await begin(stage, service)
    await killed_in_a_chunk(stage, service, again=True)
    await killed_in_a_chunk(stage, service)
    await until_ended(stage, service)
    assert check_rows(before, await arrived(stage), await now(stage)) >= 12_000


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
async def test_the_same_where_a_consumer_has_taken_the_rows_away(forgetful: Stage, retention: str) -> None:
    stage = forgetful
    before = await fill(stage, 8000)
    async with consuming(stage, retention) as consumer:
        service = await stage.service(trap=IN_A_CHUNK).start()
        await stage.add(service)
        await begin(stage, service)
        await killed_in_a_chunk(stage, service)
        await until_ended(stage, service)
        await stage.write(20)
        last = stage.written[-1]

        def all_taken() -> bool:
            taken = [consumer.taken[sequence] for sequence in sorted(consumer.taken)[-500:]]
            return any(each.change == last for each in taken if not is_of_snapshot(each))

        await until(all_taken, "all is consumed", within=60)
        assert await service.terminate() == 0, service.log_tail()
        messages = [consumer.taken[sequence] for sequence in sorted(consumer.taken)]
    assert check_rows(before, messages, await now(stage)) >= 8000


@pytest.mark.long
async def test_a_mongodb_that_keeps_no_history_fails_the_run_with_the_reason(breakable: Stage) -> None:
    stage = breakable
    await fill(stage, 100)
    service = await stage.service().start()
    await stage.add(service)
    await fail_reads(stage, times=10_000, errorCode=239)
    await begin(stage, service)

    async def said() -> bool:
        return "cannot read" in str((await service.status(stage.watcher))["snapshot"]["waits"])

    await until(said, "the status says what is in the way", within=30)
    seen = await until_ended(stage, service, "failed", within=90)
    assert WINDOW in seen["reason"]
    await failed_reads(stage)
    await stage.write(20)
    await until(lambda: the_last_has_come(stage), "the changes go on")
