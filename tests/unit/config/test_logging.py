"""The log: events as JSON or for people, by every logger, and without credentials."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.config import logging as our_logging

SECRET = "hunter2hunter2"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logging")
def test_log_lines_are_json_events_whoever_writes_them() -> None:
    out = io.StringIO()
    our_logging.configure("info", "json", stream=out, secrets=[SECRET])
    structlog.get_logger("ours").info("published", watcher="orders", count=3, uri=f"nats://u:{SECRET}@h")
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn", extra={"color_message": "coloured"})
    logging.getLogger("elsewhere").info("token %s", SECRET)
    structlog.get_logger("ours").debug("not shown")
    logging.getLogger("pymongo").info("not shown")
    try:
        raise ValueError(f"mongodb://u:pw@h and {SECRET}")
    except ValueError:
        structlog.get_logger("ours").exception("failed", authorization="Bearer abc", nested={"a": [f"x{SECRET}"]})
    first, second, third, fourth = (json.loads(each) for each in out.getvalue().splitlines())
    assert (first["event"], first["watcher"], first["count"], first["level"]) == ("published", "orders", 3, "info")
    assert first["uri"] == "nats://***@h"
    assert first["time"].endswith("Z")
    assert (second["event"], second["logger"], "color_message" in second) == ("from uvicorn", "uvicorn.error", False)
    assert third["event"] == "token ***"
    assert (fourth["authorization"], fourth["nested"]) == ("***", {"a": ["x***"]})
    assert "ValueError: mongodb://***@h and ***" in fourth["exception"]


@pytest.mark.usefixtures("restored_logging")
def test_console_lines_are_for_people_and_without_colour_off_a_terminal() -> None:
    out = io.StringIO()
    our_logging.configure("debug", "console", stream=out)
    structlog.get_logger("ours").debug("published", count=3)
    assert "published" in out.getvalue()
    assert "count=3" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mongodb://user:pw@host/?a=b", "mongodb://***@host/?a=b"),
        ("mongodb+srv://user:p@ss@host", "mongodb+srv://***@host"),
        ("nats://a:1,nats://token@b:2", "nats://a:1,nats://***@b:2"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("Basic dXNlcjpwdw== here", "Basic *** here"),
        ("password=pw&x=1", "password=***&x=1"),
        ('{"password": "pw", "a": 1}', '{"password": "***", "a": 1}'),
        ("http://host:8080/path", "http://host:8080/path"),
        ("someone@example.org", "someone@example.org"),
        ("resume token 8263B1", "resume token 8263B1"),
    ],
)
def test_redaction(text: str, clean: str) -> None:
    assert our_logging.redact(text) == clean
