"""What can be done with dead letters, over fakes: a page and its total are of one moment."""

import asyncio

import pytest

from app.control.dead_letters import DeadLetterService
from app.control.watcher_task import WatcherTask
from app.domain.dead_letters import Unpublishable
from app.domain.watcher import StoredWatcher
from tests.fakes import event_token
from tests.unit.deployment import Fakes, watcher

LETTER = Unpublishable(event_token(1), "insert", "not_encodable", "why", b"raw", key=None)


@pytest.mark.parametrize("steps", range(6))
async def test_a_letter_that_comes_while_a_page_is_read_is_in_total_and_page_or_in_neither(
    fakes: Fakes, steps: int
) -> None:
    orders = watcher("orders")
    task = fakes.task(StoredWatcher(orders))

    async def task_of(name: str) -> WatcherTask:
        return task

    dependencies = fakes.dependencies()
    service = DeadLetterService(dependencies, task_of)
    asked = asyncio.create_task(service.page("orders", after=0, limit=10))
    for _ in range(steps):
        await asyncio.sleep(0)
    await dependencies.nats.letters(orders).store(LETTER, 0)
    total, found = await asked
    assert total == len(found)
