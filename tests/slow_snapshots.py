"""Snapshots that take their time, so that something can be done in the middle of one."""

import asyncio
import contextlib

import pytest

from app.pipeline.batch_queue import Encoded
from app.pipeline.snapshot_rows import SnapshotRows


def slowed(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Fifty documents at a time, and half a second before each fifty but a run's first.

    Once the event that is returned is set, none waits any more."""
    quick, hurry = SnapshotRows.next, asyncio.Event()

    async def next_(rows: SnapshotRows, mark: str) -> Encoded | None:
        run = rows._record.now
        if run is not None and run.next > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await hurry.wait()
        return await quick(rows, mark)

    monkeypatch.setattr("app.domain.snapshot.MOST_ROWS", 50)
    monkeypatch.setattr(SnapshotRows, "next", next_)
    return hurry
