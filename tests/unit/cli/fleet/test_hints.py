"""What a demo says can be tried: commands as they can be typed, and nothing that this demo does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.fleet.hints import hints, program
from app.cli.fleet.plan import watchers

BOTH = ("mongod", "nats-server")


def test_each_part_has_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/changewire"])
    said = hints(watchers(50), "http://127.0.0.1:9000", 100, BOTH, 60)
    assert "50 watchers of 5 databases, 100 writes a second" in said
    assert "watchers list --state failed --url http://127.0.0.1:9000" in said
    assert "watchers rewind billing-invoices --at earliest --yes --url" in said
    assert "watchers dead-letters support-tickets --url http://127.0.0.1:9000" in said
    assert "mongod or nats-server is killed" in said
    assert "after 60 seconds" in said


def test_a_demo_of_one_watcher_on_foreign_servers_promises_no_accidents() -> None:
    said = hints(watchers(1), "http://127.0.0.1:8080", 2, (), 60)
    assert "1 watcher of 1 database" in said
    assert "--url" not in said
    assert not any(word in said for word in ("failed", "killed", "paused", "dead letter"))
    assert "failed" not in hints(watchers(5), "http://127.0.0.1:8080", 2, ("mongod",), 60)


def test_commands_begin_as_the_demo_was_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["changewire"])
    assert program() == "changewire"
    monkeypatch.setattr("sys.argv", [str(tmp_path / ".venv/bin/changewire")])
    monkeypatch.chdir(tmp_path)
    assert program() == ".venv/bin/changewire"
    monkeypatch.setattr("sys.argv", [str(tmp_path / "app/__main__.py")])
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv/bin/python"))
    assert program() == ".venv/bin/python -m app"
