"""Subjects from templates, and when two spaces touch."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain import subjects

TOKENS = st.sampled_from(["a", "b", "*"])
FILTERS = st.builds(
    lambda tokens, open_end: ".".join([*tokens, ">"] if open_end else tokens),
    st.lists(TOKENS, min_size=1, max_size=4),
    st.booleans(),
)
CONCRETE = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6).map(".".join)


@given(st.text(min_size=1).filter(lambda text: max(text) < "\ud800" or max(text) > "\udfff"))
def test_any_name_becomes_one_token_and_can_be_had_back(name: str) -> None:
    token = subjects.escape(name)
    assert subjects.subject_problem(token) is None
    assert subjects.stream_name_problem(token[:60]) is None
    assert "." not in token
    assert subjects.unescape(token) == name


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_two_names_never_share_a_token(one: str, other: str) -> None:
    assume(one != other)
    assert subjects.escape(one) != subjects.escape(other)


@given(FILTERS, FILTERS, CONCRETE)
def test_a_subject_that_both_match_is_an_overlap(one: str, other: str, subject: str) -> None:
    if subjects.covers(one, subject) and subjects.covers(other, subject):
        assert subjects.overlap(one, other)
        assert subjects.overlap(other, one)


@given(FILTERS, FILTERS, CONCRETE)
def test_what_is_covered_is_matched(one: str, other: str, subject: str) -> None:
    if subjects.covers(one, other) and subjects.covers(other, subject):
        assert subjects.covers(one, subject)


@pytest.mark.parametrize(
    ("one", "other", "touch"),
    [
        ("A.*", "A.insert", True),
        ("A.*", "B.*", False),
        ("A.*", "A.x.*", False),
        ("A.>", "A.x.*", True),
        ("A.>", "A", False),
        ("*.x", "A.*", True),
        ("*.x", "A.y", False),
    ],
)
def test_overlaps(one: str, other: str, touch: bool) -> None:
    assert subjects.overlap(one, other) is touch
    assert subjects.overlap(other, one) is touch


def test_names_with_a_meaning_in_nats_are_escaped() -> None:
    names = {"stream": "S", "database": "my db", "collection": "app.events.*>ü"}
    template = subjects.begin("{stream}.{database}.{collection}.{operation}", **names)
    assert template.subject("", "", "insert") == "S.my%20db.app%2Eevents%2E%2A%3Eü.insert"
    template = subjects.begin("{stream}.{collection}.x-{operation}", **names)
    assert template.filter() == "S.app%2Eevents%2E%2A%3Eü.*"


def test_a_collection_that_looks_like_a_template_stays_a_name() -> None:
    names = {"stream": "S", "database": "d", "collection": "{operation}"}
    template = subjects.begin("{stream}.{collection}.{operation}", **names)
    assert template.filter() == "S.%7Boperation%7D.*"


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{stream}.{table}", "unknown field {table}"),
        ("{stream.{operation}", "not closed"),
        ("{stream}}", "not closed"),
        ("", "empty"),
        ("a..b", "empty part"),
        (".a", "empty part"),
        ("a b", "white space"),
        ("a.*", "wildcard"),
        ("$JS.API", "starts with $"),
    ],
)
def test_templates_that_cannot_be_published_to(template: str, word: str) -> None:
    assert word in str(subjects.template_problem(template))


@pytest.mark.parametrize("name", ["", "A.B", "A B", "A*", "A>", "A/B", "A\\B", "x" * 256])
def test_stream_names_that_nats_refuses(name: str) -> None:
    assert subjects.stream_name_problem(name)
