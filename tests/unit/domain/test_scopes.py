from collections.abc import Sequence

import pytest

from app.domain.namespaces import Namespaces
from app.domain.scopes import MAX_WILD, source_problems
from app.domain.watcher import Source, Watcher, from_document, outside, problems, to_document


def found(
    database: str = "", collection: str = "", include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, str]:
    listed = source_problems(database, collection, include, exclude, state_database="changewire")
    return {each.field: each.problem for each in listed}


@pytest.mark.parametrize(
    ("database", "include", "exclude"),
    [
        ("shop", [], []),
        ("shop", ["orders_*", "users", "a.b?"], ["orders_tmp*", "system.buckets"]),
        ("", [], []),
        ("", ["shop.*", "crm_?.contacts", "*.orders"], ["shop.tmp_*", "changewire.*", "admin.*"]),
        ("shop", ["comes_later"], []),
    ],
)
def test_a_scope_is_right(database: str, include: list[str], exclude: list[str]) -> None:
    assert found(database, include=include, exclude=exclude) == {}


@pytest.mark.parametrize(
    ("source", "field", "words"),
    [
        ({"collection": "orders"}, "source.database", "is missing"),
        ({"database": "admin"}, "source.database", "system database"),
        ({"database": "changewire"}, "source.database", "own state"),
        ({"database": "resume-tokens"}, "source.database", "positions"),
        ({"database": "shop", "collection": "a", "include": ["a"]}, "source.include", "leave it out"),
        ({"database": "shop", "collection": "a", "exclude": ["a"]}, "source.exclude", "leave it out"),
        ({"database": "shop", "include": ["a", ""]}, "source.include.1", "is empty"),
        ({"database": "shop", "exclude": [""]}, "source.exclude.0", "is empty"),
        ({"database": "shop", "include": ["a$*"]}, "source.include.0", "no $"),
        ({"database": "shop", "include": [".a*"]}, "source.include.0", "no dot at either end"),
        ({"database": "shop", "include": ["system.views"]}, "source.include.0", "system collection"),
        ({"database": "shop", "include": ["system.*"]}, "source.include.0", "system collections"),
        ({"database": "shop", "include": ["x" * 300]}, "source.include.0", "255 bytes"),
        ({"database": "shop", "exclude": ["*"]}, "source.exclude", "every collection"),
        ({"database": "shop", "include": ["a_1", "b"], "exclude": ["a_?"]}, "source.include.0", "with a_?"),
        ({"database": "shop", "include": [f"a{n}*" for n in range(MAX_WILD + 1)]}, "source.include", "wildcard"),
        ({"database": "shop", "include": [f"a{n}" for n in range(1_001)]}, "source.include", "maximum is 1000"),
        ({"include": ["shop"]}, "source.include.0", "write for example shop.*"),
        ({"include": ["*"]}, "source.include.0", "write for example *.*"),
        ({"exclude": [".orders"]}, "source.exclude.0", "not database.collection"),
        ({"include": ["local.*"]}, "source.include.0", "system database"),
        ({"include": ["changewire.*"]}, "source.include.0", "own state"),
        ({"include": ["resume-tokens.orders"]}, "source.include.0", "positions"),
        ({"include": ["a b*.orders"]}, "source.include.0", "does not allow"),
        ({"exclude": ["*.*"]}, "source.exclude", "every collection"),
        ({"include": ["shop.*"], "exclude": ["sh*.*"]}, "source.include.0", "with sh*.*"),
    ],
)  # fmt: skip
def test_what_can_never_be_is_refused(source: dict[str, object], field: str, words: str) -> None:
    answer = found(**source)  # type: ignore[arg-type]
    assert words in answer[field]


def watcher(**source: object) -> Watcher:
    return from_document({"name": "all", "source": source})


class TestAWatcher:
    def test_of_a_database_has_a_subject_for_each_collection(self) -> None:
        made = watcher(database="shop", include=["orders_*"])
        assert made.sink.subject == "{stream}.{collection}.{operation}"
        assert made.sink.stream == "SHOP"
        assert made.checkpoint is None
        assert made.source.namespace == "shop"

    def test_of_the_deployment_has_one_for_each_of_each_database(self) -> None:
        made = watcher()
        assert made.sink.subject == "{stream}.{database}.{collection}.{operation}"
        assert made.sink.stream == "DEPLOYMENT"
        assert made.source.namespace == "*"

    def test_of_a_collection_is_as_ever(self) -> None:
        assert watcher(database="shop", collection="orders").sink.subject == "{stream}.{operation}"

    def test_survives_being_written_down(self) -> None:
        made = watcher(include=["shop.*"], exclude=["shop.tmp"])
        assert from_document(to_document(made)) == made

    def test_with_other_patterns_selects_other_changes(self) -> None:
        plain, chosen = watcher(database="shop"), watcher(database="shop", include=["a"])
        assert plain.route.selection != chosen.route.selection

    def test_may_not_watch_where_it_keeps_its_position(self) -> None:
        made = from_document(
            {"name": "a", "source": {"database": "shop"}, "checkpoint": {"database": "shop", "collection": "tokens"}}
        )
        answer = {each.field: each.problem for each in problems(made, state_database="changewire")}
        assert "each checkpoint would be a change" in answer["checkpoint.collection"]

    def test_may_keep_it_where_it_is_excluded(self) -> None:
        made = from_document(
            {
                "name": "a",
                "source": {"database": "shop", "exclude": ["tokens"]},
                "checkpoint": {"database": "shop", "collection": "tokens"},
            }
        )
        assert "checkpoint.collection" not in {each.field for each in problems(made, state_database="changewire")}


class TestASourceHas:
    def test_no_system_database_where_the_deployment_is_watched(self) -> None:
        source = Source()
        assert source.has("shop", "orders")
        assert not any(source.has(name, "x") for name in ("admin", "local", "config", "resume-tokens"))

    def test_no_system_collection(self) -> None:
        assert not Source("shop").has("shop", "system.views")

    def test_a_database_that_is_dropped(self) -> None:
        assert Source("shop").has_database("shop")
        assert Source(include=("shop.a",)).has_database("shop")
        assert not Source(include=("shop.a",)).has_database("other")
        assert not Source().has_database("resume-tokens")


class TestWithNamespacesThatAreAllowed:
    ALLOWED = Namespaces.parse("shop.*,crm.contacts*")

    @pytest.mark.parametrize(
        "source",
        [
            {"database": "shop"},
            {"database": "shop", "include": ["orders_?"]},
            {"database": "crm", "include": ["contacts", "contacts_*"]},
            {"include": ["shop.a*", "crm.contacts?"]},
        ],
    )
    def test_a_scope_within_them_is_allowed(self, source: dict[str, object]) -> None:
        assert outside(watcher(**source), self.ALLOWED) == []

    @pytest.mark.parametrize(
        ("source", "field"),
        [
            ({}, "source.database"),
            ({"database": "crm"}, "source.database"),
            ({"database": "crm", "include": ["contacts", "c*"]}, "source.include.1"),
            ({"database": "crm", "include": ["contact?"]}, "source.include.0"),
            ({"include": ["shop.*", "sho?.*"]}, "source.include.1"),
        ],
    )
    def test_one_that_goes_beyond_is_refused(self, source: dict[str, object], field: str) -> None:
        assert [each.field for each in outside(watcher(**source), self.ALLOWED)] == [field]


WILD: dict[str, object] = {"database": "shop", "include": ["orders", "a*"]}
DEMANDS = [("pre_and_post_images", True), ("full_document", "required"), ("full_document_before_change", "required")]


class TestImages:
    @pytest.mark.parametrize("source", [{}, {"database": "shop"}, WILD])
    @pytest.mark.parametrize(
        "asks",
        [("pre_and_post_images", True), ("full_document", "required"), ("full_document_before_change", "required")],
    )
    def test_are_not_demanded_of_what_may_come(self, source: dict[str, object], asks: tuple[str, object]) -> None:
        field, wish = asks
        found = problems(watcher(**source, **{field: wish}), state_database="changewire")
        assert [each.field for each in found] == [f"source.{field}"]

    def test_may_be_demanded_of_collections_that_are_named(self) -> None:
        made = watcher(database="shop", include=["a", "b"], pre_and_post_images=True, full_document="required")
        assert problems(made, state_database="changewire") == []
        assert made.source.named == [("shop", "a"), ("shop", "b")]
