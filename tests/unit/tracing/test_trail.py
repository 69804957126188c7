"""Which reads brought the changes that are published, and which publish a position covers."""

from __future__ import annotations

import pytest

from app.domain.errors import SinkUnavailable
from app.ports.tracer import SpanName
from app.tracing.trail import Trail
from tests.fakes.tracer import FakeSpan, FakeTracer


def span(name: SpanName = "read") -> FakeSpan:
    return FakeTracer().begin(name, {})


def test_changes_belong_to_the_read_that_brought_them() -> None:
    trail, (first, second, third) = Trail(), (span(), span(), span())
    for position, each in (("82B", first), ("82D", second), ("82F", third)):
        trail.was_read(position, each)
    assert trail.reads_of("82A", "82B") == [first]
    assert trail.reads_of("82C", "82E") == [second, third]
    assert trail.reads_of("82E", "82F") == [third]
    assert trail.reads_of("82G", "82H") == []


def test_a_read_whose_changes_go_out_in_parts_is_that_of_each_part() -> None:
    trail, read = Trail(), span()
    trail.was_read("82F", read)
    assert trail.reads_of("82A", "82C") == trail.reads_of("82D", "82F") == [read]


def test_rows_of_a_snapshot_come_with_no_read() -> None:
    trail = Trail()
    trail.was_read("82F", span())
    assert trail.reads_of("82A:0:s:01:1.1", "82A:0:s:01:1.2") == []


def test_a_position_follows_the_last_publish_that_it_covers() -> None:
    trail, (one, two, three) = Trail(), (span("publish"), span("publish"), span("publish"))
    for last, each in (("82B", one), ("82D", two), ("82F", three)):
        trail.was_published(last, each)
    assert trail.published_before("82E") is two
    assert trail.published_before("82E") is None
    assert trail.published_before("82F") is three


def test_what_is_never_asked_for_is_bounded() -> None:
    trail = Trail()
    for number in range(10_000):
        trail.was_read(f"82{number:06}", span())
    assert len(trail.reads_of("", "83")) < 100


def test_an_opening_ends_once_with_the_error_that_broke_it() -> None:
    trail, opening, error = Trail(), span("open"), SinkUnavailable("gone")
    trail.opening = opening
    with pytest.raises(SinkUnavailable), trail.failing():
        raise error
    trail.opened(None)
    assert (opening.ended, opening.error) == (True, error)
