"""Subjects that depend on a change's collection, made natively: the ones that Python makes, or left to it."""

import sys
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import subjects
from app.domain.packed import Numbered
from app.formats.extended_json import encode, names_of
from app.jetstream import frames
from tests.encoders import needs_native, packed

pytestmark = needs_native

names = st.text(max_size=20) | st.text("a$.*>%/\\{} \t_ü\u2003", max_size=12)
texts = st.text("ab-_.%", max_size=6)
templates = st.lists(
    st.tuples(texts, st.sampled_from(["{database}", "{collection}", "{operation}"])).map("".join),
    min_size=1,
    max_size=4,
).map("".join)


def template(text: str) -> subjects.Template:
    return subjects.begin(text, stream="S", database="", collection="")


def raw(number: int, operation: str = "insert", **fields: Any) -> bytes:
    return bson.encode({"_id": {"_data": f"82{number:06}"}, "operationType": operation, **fields})


def in_python(events: list[bytes], made_from: subjects.Template) -> list[str]:
    return [made_from.subject(*names_of(each), encode(each).operation) for each in events]


def test_every_character_is_escaped_as_python_escapes_it_first_and_later_in_a_name() -> None:
    from app._native import Subjects

    one = template("{collection}")
    native = Subjects(one.pieces or [])
    for code in (*range(0xD800), *range(0xE000, sys.maxunicode + 1)):
        for name in (chr(code), f"a{chr(code)}"):
            if native.subject("", name, "") != subjects.escape(name):
                pytest.fail(f"{name!r} is {native.subject('', name, '')!r}, not {subjects.escape(name)!r}")


@given(templates, names, names, st.sampled_from(["insert", "dropDatabase"]))
def test_any_template_and_names_make_the_subject_that_python_makes(
    text: str, database: str, collection: str, operation: str
) -> None:
    from app._native import Subjects

    made_from = template(text)
    expected = made_from.subject(database, collection, operation)
    native = Subjects(subjects._FIELD.split(made_from.text)).subject(database, collection, operation)
    assert native == (None if subjects.is_reserved(expected) else expected)


@given(
    st.lists(st.tuples(st.sampled_from(["insert", "update", "drop"]), names, st.sampled_from(["a", "b", "a.b"]))),
    st.sampled_from(
        ["{stream}.{collection}.{operation}", "{collection}-{database}", "{stream}.{operation}.{database}"]
    ),
    st.none() | st.just(Numbered("I.", 5, ".x")),
)
def test_a_blocks_changes_and_frames_have_the_subject_of_their_collection(
    described: list[tuple[str, str, str]], text: str, reply: Numbered | None
) -> None:
    events = [
        raw(number, operation, ns={"db": database, "coll": collection})
        for number, (operation, collection, database) in enumerate(described)
    ]
    made_from = template(text)
    expected = in_python(events, made_from)
    block = packed(events, operations=("insert", "update", "drop"), pieces=made_from.pieces)
    if any(map(subjects.is_reserved, expected)):
        assert block is None
        return
    assert block is not None
    assert [change.subject for change in block] == expected
    for part in (block, block[1:]):
        lines = Numbered("N: ", 9, "\r\n")
        filters = {operation: made_from.filter(operation) for operation in ("insert", "update", "drop")}
        built = b"".join(frames.numbered(part, filters, reply, lines))
        assert built == b"".join(frames.numbered(list(part), {}, reply, lines))


@pytest.mark.parametrize("ns", [None, {}, {"db": "shop"}, {"coll": "orders"}, {"db": "shop", "coll": ""}])
def test_a_name_that_an_event_does_not_have_is_nameless(ns: dict[str, str] | None) -> None:
    made_from = template("{stream}.{database}.{collection}.{operation}")
    events = [raw(1) if ns is None else raw(1, ns=ns), raw(2, ns={"db": "d", "coll": "c"})]
    block = packed(events, pieces=made_from.pieces)
    assert block is not None
    assert [change.subject for change in block] == in_python(events, made_from)
    assert "_" in block[0].subject.split(".")


@pytest.mark.parametrize("ns", [5, "shop.orders", {"db": 5, "coll": "c"}, {"db": "d", "coll": None}, {"db": {}}])
def test_names_that_are_no_texts_are_left_to_the_reference(ns: object) -> None:
    made_from = template("{stream}.{database}.{collection}")
    assert packed([raw(1, ns=ns)], pieces=made_from.pieces) is None
    assert packed([raw(1, ns=ns)]) is not None
    assert "_" in in_python([raw(1, ns=ns)], made_from)[0].split(".")


def test_names_can_be_read_of_anything() -> None:
    assert names_of(b"no BSON") == ("", "")
    assert names_of(raw(1, ns={"db": "shop", "coll": "a.b"})) == ("shop", "a.b")


def test_a_block_without_pieces_has_the_subjects_of_its_operations() -> None:
    block = packed([raw(1, ns={"db": "d", "coll": "c"})])
    assert block is not None
    assert block[0].subject == ""
    (chunk,) = frames.numbered(block, {"insert": "S.insert"}, None, Numbered("", 0, ""))
    assert chunk.startswith(b"HPUB S.insert ")
