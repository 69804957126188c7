"""How far a snapshot is, in words; and a service that is away for a while is waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from app.cli import CommandError, snapshot_progress
from app.cli.http_client import Refused
from app.cli.snapshot_progress import follow, short, words

RUN: dict[str, Any] = {
    "run": "a", "state": "running", "documents": 1500, "estimated_total": 3000, "reason": None, "waits": None,
    "rows_per_second": 1234.5, "estimated_end": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said", "in_a_table"),
    [
        ({}, "1,500 of about 3,000 documents, 1,234 a second", "50%"),
        ({"rows_per_second": 0}, "1,500 of about 3,000 documents", "50%"),
        ({"estimated_total": None, "rows_per_second": 0}, "1,500 documents", "1,500"),
        (
            {"estimated_end": "2020-01-01T00:00:00Z"},
            "1,500 of about 3,000 documents, 1,234 a second, done in about 0 s", "50%",
        ),
        ({"waits": "it is PAUSED"}, "1,500 of about 3,000 documents; it waits: it is PAUSED", "waits"),
        ({"state": "failed", "reason": "no"}, "failed, 1,500 of about 3,000 documents: no", "failed"),
        ({"documents": 9000, "rows_per_second": 0}, "9,000 of about 3,000 documents", "100%"),
    ],
)  # fmt: skip
def test_how_far_it_is(more: dict[str, Any], said: str, in_a_table: str) -> None:
    assert words(RUN | more) == said
    assert short(RUN | more) == in_a_table
    assert short(None) == "-"


def following(*answers: Mapping[str, Any] | Exception | None) -> int:
    left: Iterator[Mapping[str, Any] | Exception | None] = iter(answers)

    def ask() -> Mapping[str, Any]:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return {"snapshot": answer}

    return follow("orders", "a", ask)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_progress, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(snapshot_progress, "LINE_SECONDS", 0.0)


def test_a_service_that_is_away_for_a_while_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    away = CommandError("connection refused")
    assert following(RUN, away, Refused(503, ["not loaded"]), RUN, RUN | {"state": "done"}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["orders: the service does not answer; waiting for it"] * 2
    assert lines[-1] == "orders: done, 1,500 of about 3,000 documents"
    assert following(RUN | {"state": "cancelled"}) == 1


def test_what_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_progress, "PATIENCE_SECONDS", -1.0)
    for answer in (CommandError("connection refused"), Refused(404, ["gone"]), None, RUN | {"run": "b"}):
        with pytest.raises(CommandError):
            following(answer)
