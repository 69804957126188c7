"""What comes from outside gives a terminal no orders: every way from a text to a screen is through one function."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.__main__ import main
from app.cli import CommandError, doctor, say, say_json, traffic, verify, watcher_tables
from app.config import logging as our_logging
from app.config.settings import Settings
from app.domain.findings import Finding, Level
from app.domain.plain import plain
from app.verify.findings import Finding as Fault
from app.verify.findings import Findings
from app.verify.report import Report

APP = Path(__file__).parents[3] / "app"
EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\x7f\x00\u202egnp\u2066\u200f\ud800\U000e0001\u2028\rb"
ARGUMENT = EVIL.replace("\ud800", "")
"""An argument that is no text at all is refused before it is looked at."""
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"}


def harmless(text: str) -> bool:
    return not any(unicodedata.category(each) in FORBIDDEN and each != "\n" for each in text)


texts = st.text(st.characters() | st.sampled_from(EVIL))


@given(texts)
def test_no_order_is_left_and_what_is_to_be_seen_stays(text: str) -> None:
    assert harmless(plain(text))
    assert "\n" not in plain(text)
    visible = "".join(each for each in text if unicodedata.category(each) not in FORBIDDEN)
    assert plain(visible) == visible


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=10))
def test_json_stays_the_json_it_was(value: Any) -> None:
    for indent in (None, 2):
        shown = plain(json.dumps(value, ensure_ascii=False, indent=indent), keep="\n")
        assert json.loads(shown) == json.loads(json.dumps(value))
        assert harmless(shown)


def test_letters_of_any_script_stay_as_they_are() -> None:
    text = "naïve Ελλάδα 日本　語 ไทย 🐋 a\u00a0b"
    assert plain(text) == text


def test_every_command_prints_by_that_function_alone() -> None:
    found = []
    for file in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name("print")):
                    found.append(f"{file.name}: print")
                case ast.Call(func=ast.Attribute(ast.Attribute(ast.Name("sys"), "stdout" | "stderr"), "write")):
                    found.append(f"{file.name}: write")
                case ast.Call(func=ast.Name("Console")):
                    found.append(f"{file.name}: Console")
    assert sorted(found) == ["__init__.py: print", *["typed.py: Console"] * 3]


def _watcher() -> dict[str, Any]:
    return {
        "name": EVIL,
        "source": {"database": EVIL, "collection": EVIL, "pipeline": [{EVIL: EVIL}]},
        "sink": {"stream": EVIL, EVIL: EVIL},
        "status": {
            "state": EVIL, "reason": EVIL, "notes": [EVIL], "restarts": 0, "events": {"published": 1},
            "rates": {"last_60s": 1.0},
        },
    }  # fmt: skip


def _report() -> None:
    findings = Findings(skipped={EVIL: 1}, notes=[EVIL])
    findings.faults["lost"].add(Fault(EVIL, EVIL))
    report = Report(EVIL, EVIL, EVIL, EVIL, findings)
    say("\n".join(plain(line) for line in report.lines()))
    say_json(report.as_json())


def _failing() -> Settings:
    raise CommandError(EVIL)


FINDINGS = [Finding(EVIL, EVIL, Level.PROBLEM, EVIL, EVIL)]
EVENT = {"operationType": EVIL, "documentKey": {"_id": EVIL}, "wallTime": {"$date": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize(
    "show",
    [
        lambda: watcher_tables.listing([_watcher()], {}),
        lambda: watcher_tables.one(_watcher(), {"oplog_headroom_why": EVIL}, {"token": EVIL}),
        lambda: say(watcher_tables.message({"sequence": 1, "time": EVIL, "subject": EVIL, "body": EVIL})),
        lambda: say(watcher_tables.remark("trouble", {"reason": EVIL}), error=True),
        lambda: doctor.print_table(FINDINGS),
        lambda: doctor.print_json(FINDINGS, Level.PROBLEM),
        lambda: say(traffic.line(EVIL, 1, EVENT, 0.0)),
        lambda: main([ARGUMENT]),
        lambda: main(["watchers", ARGUMENT]),
        lambda: main(["openapi", ARGUMENT]),
        _report,
    ],
)
def test_nothing_that_is_shown_gives_orders(show: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        show()
    said, errors = capsys.readouterr()
    assert said or errors
    assert harmless(said + errors), said + errors
    assert "[2J" in said + errors


def test_an_error_of_a_command_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "load_settings", _failing)
    assert main(["verify", "orders"]) == 1
    assert harmless(capsys.readouterr().err)


@pytest.fixture
def log() -> Iterator[Callable[[str], io.StringIO]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(form: str) -> io.StringIO:
        out = io.StringIO()
        our_logging.configure("info", "json" if form == "json" else "console", stream=out)
        return out

    yield configure
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_line_gives_no_orders_whatever_writes_it(log: Callable[[str], io.StringIO], form: str) -> None:
    out = log(form)
    structlog.get_logger("ours").info(EVIL, name=EVIL, listed=[EVIL], inner={EVIL: EVIL}, error=ValueError(EVIL))
    logging.getLogger("uvicorn.error").warning("from %s", EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert harmless(out.getvalue().replace("\t", " "))
    if form == "json":
        assert json.loads(out.getvalue().splitlines()[0])["name"] == EVIL
    else:
        assert "Traceback" in out.getvalue()
        assert len(out.getvalue().splitlines()) > 5, "a traceback has lines"
