"""Elements found by their bounds, compared with what the driver makes of the same documents."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson.binary import Binary
from bson.code import Code
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from app.domain.raw_bson import document_of, elements, key_of


def in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-(2**31), 2**31 - 1).map(int),
    st.integers(-(2**63), 2**63 - 1).map(Int64), TEXTS.map(str),
    st.binary(max_size=12).map(bytes), st.builds(Binary, st.binary(max_size=12), st.sampled_from([2, 4, 5, 128])),
    st.binary(min_size=12, max_size=12).map(ObjectId), st.builds(Timestamp, st.integers(0, 2**32 - 1), st.just(7)),
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)).map(in_utc),
    st.builds(Regex, NAMES, st.sampled_from(["", "i", "im"])), st.builds(Code, TEXTS), st.just(Code("f", {"x": 1})),
    st.sampled_from([MinKey(), MaxKey(), Decimal128("1.5"), Decimal128("NaN"), DBRef("a", 1)]),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)


@given(DOCUMENTS)
def test_elements_are_those_that_the_driver_wrote(document: dict[str, Any]) -> None:
    raw = bson.encode(document)
    found = list(elements(raw))
    assert [name.decode() for name, *_ in found] == list(document)
    for name, begin, value, end in found:
        alone = bson.encode({name.decode(): document[name.decode()]})
        assert document_of(raw[begin:end]) == alone
        assert raw[begin + 1 : value - 1] == name
    assert document_of(*(raw[begin:end] for _, begin, _, end in found)) == raw


@given(DOCUMENTS, VALUES)
def test_a_key_is_the_id_alone_wherever_it_stands(document: dict[str, Any], key: Any) -> None:
    raw = bson.encode({**{name: value for name, value in document.items() if name != "_id"}, "_id": key})
    assert key_of(raw) == bson.encode({"_id": key})


@pytest.mark.parametrize("kind", [0x06, 0x0E, 0x0C])
def test_types_that_nothing_writes_any_more_have_bounds_too(kind: int) -> None:
    value = {0x06: b"", 0x0E: b"\x02\0\0\0s\0", 0x0C: b"\x02\0\0\0c\0" + b"i" * 12}[kind]
    raw = document_of(bytes((kind,)) + b"old\0" + value, b"\x10new\0\1\0\0\0")
    assert [name for name, *_ in elements(raw)] == [b"old", b"new"]


@pytest.mark.parametrize("raw", [b"", b"\x05\0\0\0", b"\x06\0\0\0\0\0", b"\x05\0\0\0\1", b"\x08\0\0\0\x77a\0\0"])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a BSON document"):
        list(elements(raw))


@given(DOCUMENTS, st.data())
def test_a_document_that_was_changed_on_its_way_is_read_or_refused_but_never_else(
    document: dict[str, Any], data: st.DataObject
) -> None:
    raw = bytearray(bson.encode({"_id": 1, **document}))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    at = 4
    with contextlib.suppress(ValueError):
        for _, begin, value, end in elements(bytes(raw)):
            assert at == begin < value <= end < len(raw)
            at = end


def test_a_document_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="without an _id"):
        key_of(bson.encode({"a": 1}))
