"""Which databases and collections an instance may watch: patterns, and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from app.config.settings import SettingsError, load
from app.domain.namespaces import Namespaces


@pytest.mark.parametrize(
    ("patterns", "database", "collection", "field"),
    [
        ("shop.*", "shop", "orders", None),
        ("shop.*", "shop", "a.b", None),
        ("shop.*", "shopping", "orders", "source.database"),
        ("shop.*", "Shop", "orders", "source.database"),
        ("shop.*,crm.contacts", "crm", "contacts", None),
        ("shop.*,crm.contacts", "crm", "contacts2", "source.collection"),
        ("shop.*,crm.contacts", "crm", "", "source.collection"),
        ("sh?p.a+", "shop", "aa", "source.database"),
        ("tenant-*.orders", "tenant-7", "orders", None),
        ("tenant-*.orders", "tenant-7", "orders\nx", "source.collection"),
        ("*.*", "any", "thing", None),
    ],
)
def test_namespaces(patterns: str, database: str, collection: str, field: str | None) -> None:
    found = Namespaces.parse(patterns).problems(database, collection, "source")
    assert [each.field for each in found] == ([] if field is None else [field])


@pytest.mark.parametrize("text", ["shop", ".orders", "shop.", "shop.*,crm", ","])
def test_namespaces_that_cannot_be_are_told(text: str) -> None:
    with pytest.raises(SettingsError, match="CHANGEWIRE_NAMESPACES="):
        load(environ={"CHANGEWIRE_NAMESPACES": text})
