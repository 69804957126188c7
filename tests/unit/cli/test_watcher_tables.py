"""The list of watchers: what is in trouble comes first, and is said again where a long list ends."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.watcher_tables import NAMED, counted, in_trouble, listing, severity


def watcher(name: str, state: str, **status: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source": {"database": "shop", "collection": None},
        "sink": {"stream": "SHOP"},
        "status": {
            "state": state, "reason": None, "restarts": 0, "events": {"published": 1200}, "rates": {"last_60s": 1.5},
            "as_of": None, **status,
        },
    }  # fmt: skip


def test_trouble_comes_first_as_on_the_page_and_by_name_within_a_state() -> None:
    fine = [watcher(f"{state.lower()}{number}", state) for state in ("RUNNING", "PAUSED") for number in (1, 2)]
    others = [
        watcher("a", "RUNNING", as_of="2026-01-01T00:00:00Z"),
        watcher("b", "FENCED"),
        watcher("c", "RETRYING"),
        watcher("d", "FAILED"),
        watcher("e", "STARTING"),
        watcher("f", "RUNNING", snapshot={"state": "failed"}),
        watcher("g", "LATER"),
    ]
    found = sorted([*fine, *others], key=severity)
    names = ["g", "d", "c", "a", "b", "e", "paused1", "paused2", "f", "running1", "running2"]
    assert [each["name"] for each in found] == names
    assert [each["name"] for each in found if in_trouble(each)] == ["d", "c", "a"]


def test_the_end_of_the_list_counts_states_and_says_why_each_is_in_trouble() -> None:
    found = [
        watcher("a", "FAILED", reason="the stream A is sealed"),
        watcher("b", "RUNNING", as_of="2026-01-01T00:00:00Z"),
        watcher("c", "RUNNING"),
    ]
    assert counted(found).splitlines() == [
        "3 watchers: 1 FAILED, 2 RUNNING",
        "a: FAILED: the stream A is sealed",
        "b: RUNNING: not heard of since 2026-01-01T00:00:00Z",
    ]
    many = [watcher(f"w{number}", "RETRYING", reason="x") for number in range(NAMED + 5)]
    assert len(counted(many).splitlines()) == NAMED + 2
    assert counted(many).endswith("and 5 more in trouble: changewire watchers list --trouble")


def test_where_no_terminal_cuts_it_each_watcher_is_one_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "a long reason " * 40
    listing([watcher("a", "FAILED", reason=reason), watcher("b", "RUNNING")], {"b": {"seconds": 0.25}})
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "name", "state", "source", "stream", "lag", "headroom", "published", "per", "second", "restarts", "reason",
    ]  # fmt: skip
    assert first.endswith(reason.rstrip())
    assert second.split() == ["b", "RUNNING", "shop.*", "SHOP", "0.2", "s", "-", "1,200", "1.5", "0"]
    assert second == second.rstrip()


def test_a_narrow_terminal_gets_fewer_columns_and_the_beginning_of_a_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    found = [watcher("a", "FAILED", reason="a long reason " * 40)]
    listing(found, {}, wide=False)
    head, row = capsys.readouterr().out.splitlines()
    assert "headroom" not in head
    assert "a long reason" in row
    assert row.rstrip().endswith("…")
    listing(found, {}, wide=True)
    assert "headroom" in capsys.readouterr().out
