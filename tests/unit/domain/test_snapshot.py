"""How a run of a snapshot moves on: what is planned, done, cut, and made again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.snapshot import KEPT_CHUNKS, KEPT_SECONDS, Chunk, ChunkSize, Part, Snapshot, State, next_run
from app.domain.tokens import RowPlace

RUN = "0000000003e8"
PARTS = (Part("shop.a", "aa"), Part("shop.b", "bb"))


def mark(moment: int) -> str:
    return f"82{1_700_000_000 + moment:08X}000000012B0229296E04"


def keys(first: int, count: int) -> tuple[bytes, ...]:
    return tuple(b"key %03d" % number for number in range(first, first + count))


def begun() -> Snapshot:
    return Snapshot("w", RUN, "on_demand", 1.0).begin(0, PARTS, 10, 2.0)


def plan(run: Snapshot, count: int, *, moment: int = 1, until: bytes | None = b"last") -> Snapshot:
    """Plan a chunk of so many rows that follow those that are planned."""
    found = keys(run.documents, count)
    end = found[-1] if until == b"last" else until
    return run.planned(Chunk(run.next, mark(moment), run.part, run.after, end, found, 0, count))


def ended(run: Snapshot, moment: int = 9) -> Snapshot:
    return run.planned(Chunk(run.next, mark(moment), None))


def test_a_chunk_that_is_planned_is_where_the_next_one_goes_on() -> None:
    run = plan(plan(begun(), 3), 2)
    assert [(chunk.number, chunk.after, chunk.until) for chunk in run.chunks] == [
        (0, None, b"key 002"), (1, b"key 002", b"key 004"),
    ]  # fmt: skip
    assert (run.part, run.after, run.next, run.documents) == (0, b"key 004", 2, 5)
    assert run.last == run.place(run.chunks[1], 1)


def test_a_chunk_up_to_the_collections_end_is_its_last_one() -> None:
    run = plan(begun(), 3, until=None)
    assert (run.part, run.after, run.read) == (1, None, False)
    run = run.passed(None)
    assert run.read


def test_what_was_looked_at_without_a_row_is_no_change_that_has_to_be_stored() -> None:
    run = begun()
    assert run.passed(b"key").version == run.version
    assert run.passed(b"key").after == b"key"


def test_places_of_rows_only_grow_through_chunks_and_runs() -> None:
    run = plan(plan(begun(), 3), 2, moment=2)
    places = [run.place(chunk, row) for chunk in run.chunks for row in range(chunk.rows)]
    places.append(str(RowPlace(mark(2), 0, next_run(run, 0.0), 0, 0)))
    assert places == sorted(set(places))
    assert [RowPlace.parse(place) is not None for place in places] == [True] * 6


def test_chunks_up_to_a_position_are_done_and_drop_their_keys() -> None:
    run = plan(plan(begun(), 3), 2)
    first, second = run.chunks
    assert run.acknowledged(run.place(first, 1)) is run
    done = run.acknowledged(run.end(first))
    assert [(chunk.settled, chunk.keys) for chunk in done.chunks] == [(True, ()), (False, second.keys)]
    assert done.acknowledged(run.end(first)) is done
    assert done.open
    assert done.unstored
    assert done.acknowledged(run.end(second)).running


def test_done_chunks_are_kept_for_a_while_and_what_is_forgotten_is_known() -> None:
    run = plan(plan(begun(), 1, moment=1), 1, moment=2)
    run = plan(run.acknowledged(run.last), 1, moment=KEPT_SECONDS + 2)
    gone = run.acknowledged(run.last)
    assert [chunk.number for chunk in gone.chunks] == [1, 2]
    assert gone.forgotten == run.end(run.chunks[0])


def test_not_more_chunks_are_kept_than_fit() -> None:
    run = begun()
    chunks = tuple(Chunk(number, mark(1), 0, count=1, settled=True) for number in range(KEPT_CHUNKS + 5))
    run = replace(run, chunks=(*chunks, Chunk(KEPT_CHUNKS + 5, mark(1), 0, count=1)))
    assert len(run.acknowledged(run.end(run.chunks[-1])).chunks) == KEPT_CHUNKS


def test_a_chunk_that_is_cut_ends_with_its_last_row_and_the_next_goes_on_after_it() -> None:
    run = plan(plan(plan(begun(), 3), 4), 2)
    cut = run.cut(1, 2)
    assert [(chunk.number, chunk.rows) for chunk in cut.chunks] == [(0, 3), (1, 2), (2, 0)]
    assert (cut.after, cut.part, cut.documents, cut.next) == (b"key 004", 0, 5, 3)
    assert cut.chunks[1].keys == run.chunks[1].keys


def test_a_chunk_that_is_cut_before_its_first_row_is_read_again_from_where_it_began() -> None:
    run = plan(plan(begun(), 3), 4, until=None)
    cut = run.cut(1, 0)
    assert (cut.after, cut.part, cut.documents) == (b"key 002", 0, 3)
    assert cut.end(cut.chunks[1]) == cut.chunks[1].mark


def test_a_chunk_of_which_all_rows_are_there_ends_as_it_was_planned() -> None:
    """One that was planned up to the collection's end is not read on after its last row."""
    run = ended(plan(plan(begun(), 3), 2, until=None).passed(None))
    cut = run.cut(1, 2)
    assert (cut.part, cut.after, cut.documents) == (1, None, 5)
    assert cut.chunks[:2] == run.chunks[:2]
    assert not cut.end_planned
    done = run.acknowledged(run.end(run.chunks[1]))
    assert done.cut(1, 2).part == 1  # without its keys


def test_rows_that_arrive_after_a_cut_are_taken_back_into_the_chunk() -> None:
    run = plan(plan(begun(), 5).cut(0, 1), 2)
    late = run.cut(0, 3)
    assert (late.after, late.documents, [chunk.rows for chunk in late.chunks]) == (b"key 002", 3, [3, 0])


def test_rows_that_arrive_late_say_that_all_planned_before_them_are_there() -> None:
    """A run with two chunks is cut in the first one, and what was sent of both arrives after all."""
    cut = plan(plan(begun(), 3), 4).cut(0, 1)
    run = plan(cut, 2, moment=2)
    late = run.cut(1, 2)
    assert [chunk.rows for chunk in late.chunks] == [3, 2, 0]
    assert (late.after, late.documents) == (b"key 004", 5)
    again = run.cut(2, 1)  # of the new plan: what was cut before stays so
    assert [chunk.rows for chunk in again.chunks] == [1, 0, 1]


def test_the_end_of_a_run_that_arrives_late_ends_it() -> None:
    run = ended(plan(plan(begun(), 3, until=None), 2, until=None))
    late = plan(run.cut(0, 0), 3, moment=2).cut(2, 1)
    assert (late.read, late.finish, late.documents) == (True, run.finish, 5)
    assert [chunk.rows for chunk in late.chunks] == [3, 2, 1, 0]


def test_the_message_that_a_run_is_complete_is_planned_again_where_it_is_cut() -> None:
    run = ended(plan(plan(begun(), 3, until=None), 2, until=None))
    assert run.read
    assert run.end_planned
    cut = run.cut(2, 0)
    assert (cut.read, cut.end_planned, cut.documents) == (True, False, 5)


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_a_cut_does_not_begin_a_run_again_that_was_ended(state: State) -> None:
    run = plan(begun(), 3).ended(state, 5.0, "why")
    cut = run.cut(0, 1)
    assert (cut.state, cut.reason, cut.finished_at) == (state, "why", 5.0)
    assert cut.open


def test_a_cut_has_a_run_go_on_that_was_done() -> None:
    run = ended(plan(plan(begun(), 3, until=None), 2, until=None))
    done = run.acknowledged(run.last).ended("done", 5.0)
    assert not done.open
    assert done.cut(1, 0).running


def test_a_chunk_that_was_cut_is_done_only_after_all_the_rows_that_may_arrive() -> None:
    run = plan(begun(), 4).cut(0, 1)
    chunk = run.chunks[0]
    assert run.acknowledged(run.place(chunk, 3)) is run
    assert run.acknowledged(run.place(chunk, 4)).chunks[0].settled


def test_each_step_that_is_stored_has_a_version_of_its_own() -> None:
    steps = [begun()]
    steps.append(plan(steps[-1], 2))
    steps.append(steps[-1].renamed("shop.c"))
    steps.append(steps[-1].also([Part("shop.d")]))
    steps.append(steps[-1].without())
    steps.append(steps[-1].touched())
    steps.append(steps[-1].acknowledged(steps[-1].last))
    steps.append(steps[-1].cut(0, 0))
    steps.append(steps[-1].ended("cancelled", 3.0))
    steps.append(steps[-1].given_up())
    assert [run.version for run in steps] == list(range(1, len(steps) + 1))


def test_a_collection_that_is_left_is_followed_by_the_next_one_and_its_name_is_told_once() -> None:
    run = plan(begun(), 2).without().also([Part("shop.a", "aa")])
    assert (run.part, run.after) == (1, None)
    assert [part.left for part in run.parts] == [True, False, False]
    assert run.names == ["shop.a", "shop.b"]


def test_a_run_is_named_later_than_the_one_before_though_the_clock_went_back() -> None:
    first = Snapshot("w", next_run(None, 100.0), "on_demand", 100.0)
    assert len(first.run) == 12
    assert next_run(first, 99.0) > first.run
    assert next_run(first, 101.0) > next_run(first, 99.0)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 10_000_000)), max_size=20))
def test_a_chunk_asks_for_about_as_many_bytes_as_it_should_have(read: list[tuple[int, int]]) -> None:
    size = ChunkSize(1_000_000)
    for rows, size_of_all in read:
        before = size.rows
        size.came(rows, size_of_all)
        assert 1 <= size.rows <= before * 8
        assert not rows or size.rows * (size_of_all // rows) <= 1_000_000 or size.rows == 1
