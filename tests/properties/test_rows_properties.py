"""A snapshot's rows, made natively in one piece: the bytes that the reference makes of them, whatever the documents."""

from collections.abc import Sequence
from typing import Any

import bson
from bson import Code
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.events import Change
from app.domain.raw_bson import key_of, keys_of
from app.domain.row_events import RowHead, of_rows
from app.domain.tokens import ClusterTime, RowPlace
from app.formats import native
from app.formats.extended_json import encode
from tests.encoders import needs_native, packed, raw_events
from tests.properties.test_extended_json_properties import documents, leaves, names, text, values

pytestmark = needs_native

MARK = "8265A1B2C3000000012B0229296E04"
PLACE = RowPlace(MARK, 0, "0123456789ab", 0, 0)
FITS = (1 << 20, 4096)
ROWS = ("snapshot",)

numbers = st.integers(0, 2**32 - 1)
namespaces = st.tuples(text, text)
places = st.builds(
    RowPlace, st.just(MARK), st.integers(0, 9), st.just("0123456789ab"), st.integers(0, 99_999_999), st.just(0)
)
pieces = st.none() | st.just(("S.", "database", ".", "collection", ".", "operation", ""))
keyed = st.builds(lambda before, key, after: {**before, "_id": key, **after}, documents, leaves | values, documents)


def head_of(place: RowPlace, at: tuple[int, int], names: tuple[str, str] | None) -> RowHead:
    return RowHead(place.before, ClusterTime(*at), names)


def made(documents: Sequence[bytes], head: RowHead, pieces: Sequence[str] | None) -> list[Change] | None:
    pack = native.row_packer("native")
    assert pack is not None
    found = pack(raw_events(documents), head, MARK, FITS, pieces)
    return None if found is None else list(found)


def agrees(documents: Sequence[bytes], keys: Sequence[bytes], head: RowHead, pieces: Sequence[str] | None) -> None:
    """What is made natively is what the native encoder makes of the reference's events, and where it makes changes
    without one, what the reference makes of them. Where one leaves the rows, so does the other."""
    events = list(of_rows(documents, keys, head))
    expected, found = packed(events, last=MARK, operations=ROWS, pieces=pieces), made(documents, head, pieces)
    assert found == (None if expected is None else list(expected))
    if found is not None and pieces is None:
        assert found == [encode(event, "") for event in events]
        assert [change.token for change in found] == [f"{head.before}{row:06}" for row in range(len(documents))]


@given(st.lists(keyed, max_size=4), places, st.tuples(numbers, numbers), namespaces, pieces)
def test_rows_of_documents_are_those_of_the_reference(
    given: list[dict[str, Any]],
    place: RowPlace,
    at: tuple[int, int],
    names: tuple[str, str],
    pieces: Sequence[str] | None,
) -> None:
    raw = [bson.encode(each) for each in given]
    agrees(raw, [key_of(each) for each in raw], head_of(place, at, names), pieces)


events = st.dictionaries(names | st.sampled_from(["operationType", "ns", "wallTime"]), values, max_size=5).flatmap(
    lambda fields: st.builds(
        lambda key, ns: {"_id": {"_id": key}, "operationType": "insert", **fields, **ns},
        leaves,
        st.just({}) | st.builds(lambda db, coll: {"ns": {"db": db, "coll": coll}}, text, text),
    )
)


@given(st.lists(events, max_size=4), places, st.tuples(numbers, numbers), pieces)
@example([{"_id": {"_id": 1}, "operationType": Code("", {})}], PLACE, (0, 0), None)
@example([{"_id": {"_id": 1}, "reference": {"$ref": "", "$id": 1e-7}}], PLACE, (0, 0), None)
def test_rows_of_events_are_those_of_the_reference(
    given: list[dict[str, Any]], place: RowPlace, at: tuple[int, int], pieces: Sequence[str] | None
) -> None:
    raw = [bson.encode(each) for each in given]
    agrees(raw, [b""] * len(raw), head_of(place, at, None), pieces)


@given(st.binary(max_size=60), places)
def test_damaged_bytes_are_left_to_the_reference(raw: bytes, place: RowPlace) -> None:
    assert made([raw], head_of(place, (1, 1), ("shop", "orders")), None) is None


@given(st.lists(keyed, max_size=4))
def test_keys_are_found_in_one_piece_as_one_by_one(given: list[dict[str, Any]]) -> None:
    raw = [bson.encode(each) for each in given]
    keys = keys_of(raw_events(raw))
    assert keys == [key_of(each) for each in raw]
    assert all(key[4:-1] in each for key, each in zip(keys, raw, strict=True))
