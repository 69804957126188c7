"""The crowd is forty watchers, gets its part of a run, and is judged by what each of them has to have."""

from pathlib import Path

import pytest

from tests.faults.__main__ import MINUTES, parse
from tests.faults.catalogue import FAULTS
from tests.faults.crowd import APART, SHARED, STRANGERS, WATCHED, Crowd, Visit, database_of
from tests.faults.crowd_verdict import visited
from tests.faults.forms import CROWD, INSTANCES, SNAPSHOTS
from tests.faults.instances import Instances
from tests.faults.recorder import Record
from tests.faults.snapshots import Snapshots
from tests.faults.testbed import Testbed
from tests.faults.writers import LAST

HISTORY = [(f"82{number:08X}", ("insert", f"d{number}", f"n{number}")) for number in range(10)]
VISIT = Visit("visitor", "s00", first="d3", last="d6")


def records(*numbers: int) -> list[Record]:
    return [Record(0, place, *HISTORY[number]) for place, number in enumerate(numbers, 1)]


def test_there_are_forty_watchers_of_two_databases_and_collections_that_nobody_watches() -> None:
    assert len(WATCHED) + 1 == 40  # and the one of a whole database
    assert {database_of(name) for name in SHARED} == {database_of(name) for name in APART} == {"shop", "depot"}
    assert {database_of(name) for name in STRANGERS} == {"shop", "depot"}
    assert not set(STRANGERS) & set(WATCHED)


def test_a_run_of_everything_has_all_forms_and_writes_a_result_of_each() -> None:
    plans = parse(["--seed", "1", "--json", "run.json"])
    assert [set(plan.names) for plan in plans] == [set(FAULTS), set(CROWD), set(INSTANCES), set(SNAPSHOTS)]
    assert sum(plan.minutes or 0 for plan in plans) == pytest.approx(MINUTES)
    names = ["run.json", "run.crowd.json", "run.instances.json", "run.snapshots.json"]
    assert [plan.json for plan in plans] == [Path(name) for name in names]
    assert [plan.form for plan in plans] == [Testbed, Crowd, Instances, Snapshots]


def test_what_is_asked_for_by_name_runs_in_its_own_form() -> None:
    (plan,) = parse(["--only", "crowd-paused,crowd-full", "--json", "run.json"])
    assert plan.form is Crowd
    assert (plan.minutes, plan.json) == (None, Path("run.json"))
    (plan,) = parse(["--form", "ways", "--minutes", "10"])
    assert (plan.form, plan.minutes) == (Testbed, 10)


def test_a_visitor_has_to_have_what_lies_between_its_marks_and_all_between_what_it_has() -> None:
    assert visited(HISTORY, records(3, 4, 5, 6), VISIT) == HISTORY[3:7]
    assert visited(HISTORY, records(5), VISIT) == HISTORY[3:7]
    assert visited(HISTORY, records(1, 8), VISIT) == HISTORY[1:9]
    assert visited(HISTORY, [], VISIT) == HISTORY[3:7]


def test_a_visitor_that_stays_has_to_have_everything_up_to_the_last_document() -> None:
    history = [*HISTORY, ("8300000000", ("insert", LAST, LAST))]
    assert visited(history, records(3), Visit("visitor", "s00", "d3")) == history[3:]
