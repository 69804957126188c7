import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.patterns import Choice, covers, matches, meet

NAMES = st.text(alphabet="ab._\n😀(", max_size=6)
PATTERNS = st.text(alphabet="ab._\n😀(*?", max_size=6)


def reference(pattern: str, name: str) -> bool:
    """By definition, character by character."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(reference(pattern[1:], name[index:]) for index in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and reference(pattern[1:], name[1:])


@given(PATTERNS, NAMES)
def test_a_pattern_fits_what_its_wildcards_say(pattern: str, name: str) -> None:
    assert matches(pattern, name) == reference(pattern, name)


@given(PATTERNS, PATTERNS, NAMES)
def test_what_a_pattern_covers_it_fits(wide: str, narrow: str, name: str) -> None:
    if covers(wide, narrow) and matches(narrow, name):
        assert matches(wide, name)


@given(PATTERNS, PATTERNS, NAMES)
def test_two_patterns_that_fit_one_name_meet(one: str, other: str, name: str) -> None:
    if matches(one, name) and matches(other, name):
        assert meet(one, other)
    assert meet(one, other) == meet(other, one)


@given(PATTERNS, NAMES)
def test_a_name_meets_the_patterns_that_it_fits_and_no_others(pattern: str, name: str) -> None:
    assert meet(pattern, name) == matches(pattern, name)


@pytest.mark.parametrize(
    ("one", "other", "does"),
    [("a*", "*b", True), ("a*", "b*", False), ("a?", "a", False), ("*a*", "*b*", True), ("o_?", "o_10", False)],
)  # fmt: skip
def test_patterns_meet(one: str, other: str, does: bool) -> None:
    assert meet(one, other) is does


@pytest.mark.parametrize(
    ("wide", "narrow", "does"),
    [("*", "a?*", True), ("a*", "a_*", True), ("a_*", "a*", False), ("a?", "ab", True), ("a?", "a*", False)],
)  # fmt: skip
def test_patterns_cover(wide: str, narrow: str, does: bool) -> None:
    assert covers(wide, narrow) is does


def test_many_stars_take_no_time() -> None:
    begun = time.process_time()
    assert not matches("*a" * 100 + "b", "a" * 255)
    assert time.process_time() - begun < 5  # trying every place again would take longer than anybody lives


class TestChoice:
    def test_of_a_database_has_all_without_patterns(self) -> None:
        choice = Choice("shop", (), ())
        assert choice.has("shop", "orders")
        assert not choice.has("other", "orders")

    def test_of_a_database_fits_the_collection_with_its_dots(self) -> None:
        choice = Choice("shop", ("orders.*", "users"), ("orders.old.*",))
        assert choice.has("shop", "orders.eu.north")
        assert choice.has("shop", "users")
        assert not choice.has("shop", "orders")
        assert not choice.has("shop", "orders.old.2019")

    def test_of_the_deployment_divides_a_pattern_at_its_first_dot(self) -> None:
        choice = Choice("", ("shop.*", "crm_?.contacts.eu"), ("shop.tmp*",))
        assert choice.has("shop", "a.b.c")
        assert choice.has("crm_1", "contacts.eu")
        assert not choice.has("crm_10", "contacts.eu")
        assert not choice.has("shop", "tmp.1")
        assert not choice.has("shopping", "orders")

    def test_knows_the_databases_that_it_has_something_of(self) -> None:
        choice = Choice("", ("shop.orders", "crm_*.*"), ("crm_old.*", "shop.tmp"))
        assert choice.has_of("shop")
        assert choice.has_of("crm_1")
        assert not choice.has_of("crm_old")
        assert not choice.has_of("hr")
