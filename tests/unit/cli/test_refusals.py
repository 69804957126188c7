"""What the service says is wrong with several watchers, a line for each field, with the names that they have."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.http_client import field_line
from app.cli.watcher_files import with_names

NAMES = ["one", "two", "watcher 3 of x.yaml"]


@pytest.mark.parametrize(
    ("error", "names", "line"),
    [({"field": "sink.stram", "detail": "is not a known field"}, ["one"], "one: sink.stram: is not a known field"),
     ({"field": "[1].sink.stram", "detail": "is wrong", "watcher": "two"}, NAMES, "two: sink.stram: is wrong"),
     ({"field": "[1].sink.stram", "detail": "is wrong"}, NAMES, "two: sink.stram: is wrong"),
     ({"field": "[2].name", "detail": "is required"}, NAMES, "watcher 3 of x.yaml: name: is required"),
     ({"field": "[1]", "detail": "must be an object"}, NAMES, "two: must be an object"),
     ({"field": "[9].name", "detail": "is required"}, NAMES, "[9].name: is required"),
     ({"field": "body", "detail": "is required"}, NAMES, "body: is required")],
)  # fmt: skip
def test_an_error_of_a_field_in_each_form(error: dict[str, Any], names: list[str], line: str) -> None:
    assert list(with_names([field_line(error)], names)) == [line]


def test_conflicts_without_fields_are_taken_apart() -> None:
    said = "[0] there is a watcher one already; replace it; [1] two would overlap with one; use another template"
    assert list(with_names([said], NAMES)) == [
        "one: there is a watcher one already; replace it",
        "two: two would overlap with one; use another template",
    ]
    assert list(with_names(["the registry is full"], NAMES)) == ["the registry is full"]
