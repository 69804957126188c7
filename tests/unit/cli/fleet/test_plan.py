"""Which watchers a demo has: as many as asked for, no two alike, and the same ones each time."""

from __future__ import annotations

import pytest

from app.cli.fleet.plan import MIB, Part, databases, one, watchers
from app.domain.watcher import from_document, problems


@pytest.mark.parametrize("count", [1, 2, 5, 50, 51, 137, 500])
def test_there_are_as_many_as_asked_for_and_the_service_takes_each(count: int) -> None:
    fleet = watchers(count)
    assert len({each.name for each in fleet}) == len({each.stream for each in fleet}) == count
    assert sum(each.share for each in fleet) == pytest.approx(1)
    for each in fleet:
        watcher = from_document(each.definition())
        assert problems(watcher, state_database="changewire") == []
        assert watcher.sink.stream == each.stream


def test_a_smaller_demo_has_the_first_of_them_and_the_failing_one_has_one_name() -> None:
    assert [each.name for each in watchers(7)] == [each.name for each in watchers(50)][:7]
    for count in (2, 50, 500):
        failing = one(watchers(count), Part.FAILS)
        assert failing is not None
        assert failing.name == "billing-invoices"
    assert one(watchers(1), Part.FAILS) is None


def test_fifty_watchers_share_change_streams_and_their_streams_stay_below_a_gigabyte() -> None:
    fleet = watchers(50)
    assert databases(fleet) == dict.fromkeys(("shop", "billing", "logistics", "support", "analytics"), 10)
    assert {each.part for each in fleet} == set(Part)
    assert sum(each.max_bytes for each in fleet) < 1024 * MIB
    assert fleet[0].share > 10 * fleet[-1].share
