"""Templates of subjects: one collection's, a database's and a deployment's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import subjects
from app.domain.watcher import Sink, Source, Watcher

ONE, DATABASE, DEPLOYMENT = Source("shop", "orders"), Source("shop"), Source()


def watcher(source: Source, subject: str) -> Watcher:
    return Watcher("w", source, Sink("S", subject))


@pytest.mark.parametrize(
    ("source", "template", "space", "inserts", "depends"),
    [
        (ONE, "{stream}.{database}.{collection}.{operation}", "S.shop.orders.*", "S.shop.orders.insert", False),
        (DATABASE, "{stream}.{operation}", "S.*", "S.insert", False),
        (DATABASE, "{stream}.{database}.{operation}", "S.shop.*", "S.shop.insert", False),
        (DATABASE, "{stream}.{database}.{collection}.{operation}", "S.shop.*.*", "S.shop.*.insert", True),
        (DATABASE, "{stream}.{collection}-{operation}", "S.*", "S.*", True),
        (DEPLOYMENT, "{stream}.{database}.{collection}.{operation}", "S.*.*.*", "S.*.*.insert", True),
        (DEPLOYMENT, "{stream}.{database}_{collection}", "S.*", "S.*", True),
    ],
)
def test_what_is_left_open_is_a_wildcard_in_the_filters(
    source: Source, template: str, space: str, inserts: str, depends: bool
) -> None:
    made = watcher(source, template)
    assert (made.space, made.subject("insert")) == (space, inserts)
    assert made.subjects.names_sources is depends
    assert (made.subjects.pieces is not None) is depends


names = st.text(min_size=1, max_size=20).filter(lambda text: not any("\ud800" <= each <= "\udfff" for each in text))


@given(
    st.sampled_from([ONE, DATABASE, DEPLOYMENT]),
    st.sampled_from(
        ["{stream}.{operation}", "{stream}.{database}.{collection}.{operation}", "{stream}.{collection}-{operation}"]
    ),
    names,
    names,
    st.sampled_from(["insert", "dropDatabase", "gap"]),
)
def test_every_subject_is_in_the_filters_and_no_longer_than_is_said(
    source: Source, template: str, database: str, collection: str, operation: str
) -> None:
    made = watcher(source, template)
    subject = made.subjects.subject(source.database or database, source.collection or collection, operation)
    assert subjects.covers(made.space, subject)
    assert subjects.covers(made.subject(operation), subject)
    assert subjects.subject_problem(subject) is None
    assert len(subject.encode()) <= made.subjects.most_bytes(operation)


def test_the_most_that_names_take_is_counted_for_a_scope_alone() -> None:
    one, many = (
        watcher(ONE, "{stream}.{collection}.{operation}"),
        watcher(DATABASE, "{stream}.{collection}.{operation}"),
    )
    assert one.most_subject_bytes == one.longest_subject == len("S.orders.replace")
    assert many.longest_subject == len("S.*.replace")
    longest = many.subjects.subject("shop", "." * 250, "replace")
    assert many.longest_subject < len(longest) <= many.most_subject_bytes


def test_a_change_without_a_name_has_a_subject_all_the_same() -> None:
    made = watcher(DEPLOYMENT, "{stream}.{database}.{collection}.{operation}")
    assert made.subjects.subject("shop", "", "dropDatabase") == "S.shop._.dropDatabase"
    assert made.subjects.subject("", "", "gap") == "S._._.gap"


@pytest.mark.parametrize(
    ("source", "namespace", "may"),
    [
        (ONE, "shop.orders", True), (ONE, "shop.items", False), (ONE, None, True),
        (DATABASE, "shop.a.b", True), (DATABASE, "shops.orders", False), (DATABASE, None, True),
        (DEPLOYMENT, "any.thing", True),
    ],
)  # fmt: skip
def test_a_stored_message_is_the_watchers_if_its_database_and_collection_are(
    source: Source, namespace: str | None, may: bool
) -> None:
    assert source.may_have_had(namespace) is may


def test_a_subject_of_nats_is_told_by_its_first_part() -> None:
    assert subjects.is_reserved("_INBOX.insert")
    assert not subjects.is_reserved("S._INBOX.insert")
    assert not subjects.is_reserved("_INBOXES.insert")
