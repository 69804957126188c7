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
