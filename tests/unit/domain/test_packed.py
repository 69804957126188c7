"""What is asked of changes as a whole, of a plain list of them; blocks are in `formats/test_native_blocks.py`."""

from app.domain.events import Change
from app.domain.packed import Numbered, operations_of, size_of, wall_times_of

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
