"""Thousands of runs: their logs would take longer than they do."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.fakes import FakeStream


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module", params=["fast_ingest", "atomic"])
def both_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each property of publishing holds in both modes that have several sends under way."""
    before, FakeStream.usual = FakeStream.usual, request.param
    yield
    FakeStream.usual = before


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    for name, seconds in (
        ("app.pipeline.snapshot.HOLD_SECONDS", 0.0),
        ("app.pipeline.snapshot.BETWEEN_SECONDS", 0.0),
        ("app.pipeline.snapshot.AGAIN_SECONDS", 0.0),
        ("app.pipeline.snapshot.TOO_OLD_TRIES", 1_000_000),
        ("app.pipeline.snapshot_rows.CHUNK_BYTES", 200),
        ("app.pipeline.snapshot_rows.SCANNED", 3),
        ("app.pipeline.snapshot_record.STORE_SECONDS", 0.0),
        ("app.pipeline.checkpointer.BUSY_SECONDS", 0.0),
    ):
        monkeypatch.setattr(name, seconds)
    monkeypatch.setattr("app.domain.backoff.delay", lambda attempt, chance: 0.0)
