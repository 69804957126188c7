"""Blocks of the native transcoder: the changes that the reference makes, as one piece, and only of a regular batch."""

from collections.abc import Sequence

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Change
from app.domain.packed import PackedChanges, front, operations_of, size_of, wall_times_of
from app.formats.extended_json import encode
from tests.encoders import needs_native, packed

pytestmark = needs_native


def event(number: int, operation: str = "insert", **fields: object) -> bytes:
    return bson.encode({"_id": {"_data": f"82{number:06}"}, "operationType": operation, **fields})


def block(events: Sequence[bytes], **rules: object) -> PackedChanges:
    made = packed(events, **rules)  # type: ignore[arg-type]
    assert made is not None
    return made


events = st.lists(
    st.tuples(st.sampled_from(["insert", "update", "delete", "drop"]), st.text(max_size=40), st.integers(0, 2_000_000)),
    max_size=30,
).map(
    lambda found: [
        event(index, operation, text=text, wallTime=DatetimeMS(wall) if wall % 3 else None)
        for index, (operation, text, wall) in enumerate(found)
    ]
)
suffixes = st.sampled_from(["", ":2"])
SELECTED = ("insert", "update")


def reference(raw: Sequence[bytes], suffix: str) -> list[Change]:
    return [change for each in raw if (change := encode(each, suffix)).operation in SELECTED]


@given(events, suffixes)
def test_a_block_is_the_sequence_that_the_reference_makes(raw: list[bytes], suffix: str) -> None:
    made, expected = block(raw, suffix=suffix, operations=SELECTED), reference(raw, suffix)
    assert list(made) == expected
    assert len(made) == len(expected)
    assert all(type(change) is Change for change in made)
    assert list(reversed(made)) == expected[::-1]


@given(events, suffixes, st.integers(-35, 35), st.integers(-35, 35), st.integers(0, 35))
def test_a_part_of_it_is_what_that_part_of_a_list_is(
    raw: list[bytes], suffix: str, start: int, stop: int, within: int
) -> None:
    made, expected = block(raw, suffix=suffix, operations=SELECTED), reference(raw, suffix)
    part, part_expected = made[start:stop][within:], expected[start:stop][within:]
    assert isinstance(part, PackedChanges)
    assert list(part) == part_expected
    assert size_of(part) == part.size == size_of(part_expected)
    assert operations_of(part) == operations_of(part_expected)
    assert wall_times_of(part) == wall_times_of(part_expected)


@given(events, st.integers(0, 5_000), st.integers(0, 300))
def test_as_many_fit_as_the_bytes_allow_and_one_at_least(raw: list[bytes], size: int, beside: int) -> None:
    made = block(raw)
    count = made.fitting(size, beside)
    assert count >= min(1, len(made))
    assert count <= 1 or made[:count].size + beside * count <= size
    assert count == len(made) or made[: count + 1].size + beside * (count + 1) > size
    for most in (7, 100):
        assert list(front(made, most, size, beside)) == front(list(made), most, size, beside)


def test_an_index_beyond_it_is_refused_and_a_slice_with_a_step_too() -> None:
    made = block([event(1), event(2)])
    assert (made[0].token, made[-1].token) == ("82000001", "82000002")
    for index in (2, -3):
        with pytest.raises(IndexError):
            made[index]
    with pytest.raises(ValueError, match="step"):
        made[::2]
    assert repr(made[1:]) == "NativeChanges(1 changes, 61 bytes)"


def test_a_batch_that_is_not_regular_is_left() -> None:
    good = [event(number) for number in range(1, 4)]
    assert packed(good) is not None
    assert packed(good, last="82000001") is None, "not later than what was before"
    assert packed([*good, good[0]]) is None, "tokens that do not grow"
    assert packed([good[0][:-1]]) is None, "damaged"
    assert packed(good, fits=(10, 4096)) is None, "perhaps too large"
    assert packed(good, fits=(4096, 8)) is None, "perhaps too long an id"
    assert packed([event(1, text="x" * 500), event(2, "drop")], fits=(4096, 9)) is not None
    assert packed([event(1, "drop", text="x" * 5000)], fits=(4096, 9)) is not None, "what is left out may be large"
    assert packed([]) is not None
