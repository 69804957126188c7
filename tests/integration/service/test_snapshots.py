"""Snapshots: every document once, at its exact place among the changes, whatever dies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service import Service, Stage, until
from tests.service.messages import Message, assert_same
from tests.service.rows import check_rows, is_of_snapshot


async def fill(stage: Stage, count: int, *, size: int = 200) -> dict[Any, int]:
    """Insert documents that no watcher sees, and return the number of each."""
    await stage.collection.insert_many([{"_id": -n, "n": -n, "text": "x" * size} for n in range(1, count + 1)])
    return {-n: -n for n in range(1, count + 1)}


async def now(stage: Stage) -> dict[Any, int]:
    return {each["_id"]: each["n"] async for each in stage.collection.find({}, {"n": 1})}


async def begin(stage: Stage, service: Service, **wish: Any) -> str:
    """Begin a run, once the stored position is behind the rows of the one before."""

    async def begun() -> str | None:
        answer = await service.call("POST", f"/watchers/{stage.watcher}/snapshot", wish or None)
        if answer.status_code == 409 and "has not ended altogether" in answer.text:
            return None
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])

    return str(await until(begun, "a run begins"))


async def until_ended(stage: Stage, service: Service, state: str = "done", within: float = 60) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def ended() -> bool:
        nonlocal seen
        seen = (await service.status(stage.watcher)).get("snapshot") or {}
        return seen.get("state") not in (None, "running")

    await until(ended, f"the snapshot has ended: {seen}", within=within)
    assert seen["state"] == state, seen
    return seen


async def arrived(stage: Stage, ended: dict[str, Any]) -> list[Message]:
    """Wait until every change is there beside the rows of a run that has ended and its last message, end the services,
    and return all messages; the changes are checked."""
    await stage.until_length(len(stage.written) + ended["documents"] + 1, within=60)
    for service in stage._services:
        if service.running:
            service.thaw()
            assert await service.terminate() == 0, service.log_tail()
    messages = await stage.messages()
    assert_same(stage.written, [each.change for each in messages if not is_of_snapshot(each)])
    return messages


async def test_each_document_comes_once_where_nothing_else_happens(stage: Stage) -> None:
    before = await fill(stage, 5000)
    service = await stage.service().start()
    await stage.add(service)
    run = await begin(stage, service)
    seen = await until_ended(stage, service)
    assert (seen["documents"], seen["estimated_total"], seen["run"]) == (5000, 5000, run)
    assert check_rows(before, await arrived(stage, seen), await now(stage)) == 5000


async def test_each_row_is_as_the_changes_before_it_have_left_it(stage: Stage) -> None:
    before = await fill(stage, 20_000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await stage.add(service)
    async with stage.load():
        await begin(stage, service)
        seen = await until_ended(stage, service)
    check_rows(before, await arrived(stage, seen), await now(stage))


@pytest.mark.long
async def test_a_run_goes_on_where_it_was_when_the_service_was_killed(stage: Stage) -> None:
    before = await fill(stage, 30_000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await stage.add(service)
    async with stage.load():
        await begin(stage, service)
        for rows in (2_000, 10_000, 20_000):
            await stage.until_length(rows, within=60)
            service.kill()
            await service.start()
        seen = await until_ended(stage, service)
    check_rows(before, await arrived(stage, seen), await now(stage))
