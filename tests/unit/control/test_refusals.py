"""All that is wrong with a change is one error: what the user can correct before what a server is short of."""

import pytest

from app.control.refusals import Refusals, refuse_all
from app.domain.errors import ChangewireError, Conflict, FieldProblem, Invalid, Unavailable

STREAM = FieldProblem("sink.stream", "is empty")
NAME = FieldProblem("name", "is taken")


def found(*errors: ChangewireError) -> Refusals:
    refusals = Refusals()
    for error in errors:
        with refusals.noted():
            raise error
    return refusals


def test_nothing_wrong_is_no_error() -> None:
    assert not found()
    found().refuse()


def test_invalid_fields_and_conflicts_are_one_error_with_all_of_them() -> None:
    refusals = found(Unavailable("MongoDB is away"), Conflict("it is there", (NAME,)), Invalid(problems=(STREAM,)))
    with pytest.raises(Invalid) as refused:
        refusals.refuse()
    assert refused.value.problems == (STREAM, NAME)


def test_conflicts_alone_stay_conflicts() -> None:
    with pytest.raises(Conflict, match=r"^it is there; it overlaps$") as refused:
        found(Conflict("it is there", (NAME,)), Conflict("it overlaps")).refuse()
    assert refused.value.problems == (NAME,)


def test_a_server_that_is_away_is_told_where_nothing_else_is_wrong() -> None:
    with pytest.raises(Unavailable, match="MongoDB is away"):
        found(Unavailable("MongoDB is away"), Unavailable("NATS is away")).refuse()


def test_a_field_is_told_once() -> None:
    refusals = found(Invalid(problems=(STREAM,)), Invalid(problems=(FieldProblem("sink.stream", "is odd"), NAME)))
    assert refusals.invalid == [STREAM, NAME]


def test_parts_with_something_wrong_are_not_clean() -> None:
    refusals = found(Invalid(problems=(STREAM,)))
    assert refusals.clean("source")
    assert refusals.clean("sin")
    assert not refusals.clean("sink")
    assert not refusals.clean("source", "sink")


def test_those_of_a_list_have_their_place_and_their_name() -> None:
    with pytest.raises(Invalid) as refused:
        refuse_all([found(Conflict("taken", (NAME,))), found(), found(Invalid(problems=(STREAM,)))], ["a", "b", "c"])
    assert refused.value.problems == (
        FieldProblem("[2].sink.stream", "is empty", "c"),
        FieldProblem("[0].name", "is taken", "a"),
    )
    with pytest.raises(Conflict, match=r"^\[1\] taken$") as conflict:
        refuse_all([found(), found(Conflict("taken", (NAME,)))], ["a", "b"])
    assert conflict.value.problems == (FieldProblem("[1].name", "is taken", "b"),)


def test_a_conflict_about_what_is_invalid_already_is_forgotten() -> None:
    both = Conflict("it is there; it overlaps", (NAME, FieldProblem("sink.subject", "overlaps")))
    refusals = found(
        Conflict("overlaps", (FieldProblem("sink.subject", "overlaps"),)), both, Invalid(problems=(STREAM,))
    )
    refusals.drop_what_follows()
    assert [each.problems for each in refusals.conflicts] == [(NAME,)]
