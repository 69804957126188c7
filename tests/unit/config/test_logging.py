"""The log: events as JSON or for people, by every logger, and without credentials."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.config import logging as our_logging
from app.config.log_events import EVENTS

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
    assert (second["event"], second["message"]) == ("library_message", "from uvicorn")
    assert (second["logger"], "color_message" in second) == ("uvicorn.error", False)
    assert (third["event"], third["message"]) == ("library_message", "token ***")
    assert (fourth["authorization"], fourth["nested"]) == ("***", {"a": ["x***"]})
    assert "ValueError: mongodb://***@h and ***" in fourth["exception"]


@pytest.mark.usefixtures("restored_logging")
def test_a_line_begins_with_its_time_level_and_event_and_a_serious_one_says_what_to_do() -> None:
    out = io.StringIO()
    our_logging.configure("info", "json", stream=out)
    log = structlog.get_logger("ours")
    log.warning("watcher_retrying", watcher="orders", reason="no answer")
    log.warning("certificate", problem="it has expired", hint="its own advice")
    log.info("audit", outcome="done")
    log.warning("audit", outcome="refused")
    logging.getLogger("pymongo").error("not ours")
    lines = [json.loads(each) for each in out.getvalue().splitlines()]
    assert all(list(line)[:3] == ["time", "level", "event"] for line in lines)
    hints = [line.get("hint") for line in lines]
    advice = [EVENTS[name].advice for name in ("watcher_retrying", "audit", "library_message")]
    assert hints == [advice[0], "its own advice", None, advice[1], advice[2]]


@pytest.mark.usefixtures("restored_logging")
def test_the_catalogues_advice_and_a_librarys_fields_are_without_secrets_too() -> None:
    out = io.StringIO()
    our_logging.configure("info", "json", stream=out, secrets=[SECRET])
    logging.getLogger("nats.aio").warning("connecting to %s", f"nats://u:{SECRET}@h", extra={"server": {"url": SECRET}})
    structlog.get_logger("ours").error("watcher_failed", watcher="w", reason=f"mongodb://u:pw@h: {SECRET}", type="X")
    library, ours = (json.loads(each) for each in out.getvalue().splitlines())
    assert (library["message"], library["server"]) == ("connecting to nats://***@h", {"url": "***"})
    assert ours["reason"] == "mongodb://***@h: ***"
    assert SECRET not in out.getvalue()


@pytest.mark.usefixtures("restored_logging")
def test_uvicorn_tells_nothing_of_its_own_life_and_what_clients_cause_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("app.config.logging.time.monotonic", lambda: now[0])
    out = io.StringIO()
    our_logging.configure("info", "json", stream=out)
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.info("Started server process [1]")
    for _ in range(100):
        uvicorn.warning("Invalid HTTP request received.")
    now[0] = our_logging.REPEATED_SECONDS
    uvicorn.warning("Invalid HTTP request received.")
    for _ in range(2):
        uvicorn.error("Exception in ASGI application")
    said = [json.loads(each)["message"] for each in out.getvalue().splitlines()]
    assert said == ["Invalid HTTP request received."] * 2 + ["Exception in ASGI application"] * 2


@pytest.mark.usefixtures("restored_logging")
def test_requests_are_logged_where_debug_is_asked_for() -> None:
    out = io.StringIO()
    our_logging.configure("debug", "json", stream=out)
    logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1:1", "GET / HTTP/1.1")
    assert json.loads(out.getvalue())["message"] == '127.0.0.1:1 - "GET / HTTP/1.1"'


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
