"""What is asked of changes as a whole, of a plain list of them; blocks are in `formats/test_native_blocks.py`."""

from dataclasses import replace

from app.domain.dead_letters import Unpublishable
from app.domain.events import Change
from app.domain.packed import Numbered, are_plain, front, operations_of, size_of, wall_times_of

CHANGES = [
    Change("82A", "insert", b"{...}", 3.0, "82A:2"),
    Change("82B", "update", b"{}", 2.0, "82B:2"),
    Change("82C", "insert", b"{}", 0.0, "82C:2"),
]


def test_a_list_has_size_operations_and_times() -> None:
    assert size_of(CHANGES) == 9 + 3 * 5
    assert operations_of(CHANGES) == {"insert": 2, "update": 1}
    assert wall_times_of(CHANGES) == [0.0, 2.0, 3.0]
    assert (size_of([]), operations_of([]), wall_times_of([])) == (0, {}, [])


def test_a_number_grows_with_the_message() -> None:
    assert [Numbered("a", 9, "z").at(index) for index in range(3)] == ["a9z", "a10z", "a11z"]


def test_what_goes_out_together_ends_before_a_dead_letter_and_is_bounded_by_count_and_bytes() -> None:
    letter = Unpublishable("82C", "insert", "oversize", "too large", b"")
    with_letter = [*CHANGES[:2], replace(CHANGES[2], letter=letter)]
    assert front(with_letter, 10, 1000, 0) == CHANGES[:2]
    assert front(with_letter[2:], 10, 1000, 0) == []
    assert front(CHANGES, 2, 1000, 0) == CHANGES[:2]
    assert front(CHANGES, 10, 16, 0) == CHANGES[:1], "10 bytes, and 7 more"
    assert front(CHANGES, 10, 17, 0) == CHANGES[:2]
    assert front(CHANGES, 10, 17, 1) == CHANGES[:1]
    assert front(CHANGES, 10, 0, 0) == CHANGES[:1], "one at least"
    pointing = [replace(CHANGES[0], body=b"x" * 1000, pointer=b"{}"), CHANGES[1]]
    assert front(pointing, 10, 14, 0) == pointing, "of a pointer only the small body goes out"


def test_plain_is_what_needs_neither_dead_letter_nor_object_store() -> None:
    assert are_plain(CHANGES)
    assert not are_plain([*CHANGES, replace(CHANGES[0], pointer=b"{}")])
    assert not are_plain([replace(CHANGES[0], letter=Unpublishable("82C", "insert", "oversize", "", b""))])
