"""Events in one piece of bytes: a sequence like a list of them."""

from app.domain.raw_events import RawEvents, size_of

EVENTS = RawEvents(b"--one-two--three", [2, 6, 11], [5, 9, 16])


def test_it_is_a_sequence_of_the_events_bytes() -> None:
    assert list(EVENTS) == [b"one", b"two", b"three"]
    assert len(EVENTS) == 3
    assert EVENTS[0] == b"one"
    assert EVENTS[-1] == b"three"
    assert all(type(event) is bytes for event in EVENTS)


def test_a_slice_is_one_too_and_copies_nothing() -> None:
    assert EVENTS[1:] == [b"two", b"three"]
    assert EVENTS[1:].buffer is EVENTS.buffer
    assert (EVENTS[1:].size, EVENTS[:0].size) == (8, 0)


def test_it_equals_the_same_events_in_a_list_and_no_others() -> None:
    assert EVENTS == [b"one", b"two", b"three"]
    assert EVENTS != [b"one", b"two"]
    assert EVENTS != [b"one", b"two", b"four"]
    assert RawEvents(b"", [], []) == []
    assert EVENTS != 3


def test_its_size_is_that_of_the_events() -> None:
    assert EVENTS.size == size_of(EVENTS) == size_of(list(EVENTS)) == 11
