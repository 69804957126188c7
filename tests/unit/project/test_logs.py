"""The catalogue of log events is complete, and each event is one fact at one level."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from app.config.log_events import AUDIT_FIELDS, EVENTS, FIELDS, SECTIONS
from app.control.watcher_state import WatcherState
from tests.docs_reference import DOCS
from tests.log_lines import LogLine, log_lines, stray_lines

LINES = log_lines()
FOREIGN = {"library_message"}
"""Made of a library's line, by `app/config/logging.py`."""
SERIOUS = {"warning", "error", "critical"}
ON_EVERY_LINE = {"time", "level", "event", "logger", "hint"}


def by_event() -> dict[str, list[LogLine]]:
    found: defaultdict[str, list[LogLine]] = defaultdict(list)
    for line in LINES:
        found[line.event].append(line)
    return found


def test_every_log_line_is_a_literal_event_at_a_literal_level() -> None:
    assert len(LINES) > 80
    assert stray_lines() == []
    assert [line.where for line in LINES if not re.fullmatch(r"[a-z]+(_[a-z]+)*", line.event)] == []


def test_every_event_is_in_the_catalogue_once_and_nothing_else_is() -> None:
    named = [name for section in SECTIONS.values() for name in section]
    assert sorted(named) == sorted({line.event for line in LINES} | FOREIGN)


def test_each_event_has_one_level_but_the_audit_log_which_warns_of_refusals() -> None:
    levels = {event: {line.level for line in lines} for event, lines in by_event().items()}
    assert {event: several for event, several in levels.items() if len(several) > 1} == {"audit": {"info", "warning"}}


def test_whatever_is_serious_says_what_to_do() -> None:
    """The advice is short: it stands on the line too."""
    serious = {line.event for line in LINES if line.level in SERIOUS} | FOREIGN
    assert sorted(name for name in serious if not EVENTS[name].advice) == []
    assert [name for name, event in EVENTS.items() if len(event.advice) > 130] == []
    assert [name for name, event in EVENTS.items() if event.advice and name not in serious] == []


def test_whatever_is_serious_names_what_it_is_about() -> None:
    """An error of Changewire itself has its traceback; all else a reason, or figures that are one."""
    figures = {"left", "count", "seconds", "after_seconds", "silent_seconds", "bytes", "without", "until", "last"}
    told = {"reason", "exception", "problem", "chunks", "watchers", "at_once", "created"} | figures
    bare = [line.where for line in LINES if line.level in SERIOUS and not line.open and not told & set(line.fields)]
    assert bare == []


def test_every_field_is_explained_and_nothing_else_is() -> None:
    used = {field for line in LINES for field in line.fields} | {"message", "hint"} | ON_EVERY_LINE
    assert sorted(used - FIELDS.keys()) == []
    assert sorted(FIELDS.keys() - used) == []
    assert [line.event for line in LINES if line.open] == ["audit", "audit"], "fields that the source does not name"


def test_what_the_catalogue_says_names_fields_and_calls_that_there_are() -> None:
    fields = {name: {field for line in lines for field in line.fields} for name, lines in by_event().items()}
    known = {"members", "registry", "stream_lost_its_end", "server_unreachable", "native", "python"}
    for name, event in EVENTS.items():
        if name in FOREIGN or name == "audit":
            continue
        words = set(re.findall(r"`(\w+)`", f"{event.says} {event.advice}"))
        assert words - fields[name] <= known | {"on_history_lost"}, name


def test_the_page_has_every_event_with_its_level_and_the_audit_log_its_fields() -> None:
    page = (DOCS / "logs.md").read_text()
    for line in LINES:
        assert re.search(rf"^\| `{line.event}` \| [\w, ]*\b{line.level}\b", page, re.MULTILINE), line.event
    assert [name for name in AUDIT_FIELDS if f"| `{name}` |" not in page] == []


def test_the_examples_of_queries_name_events_and_fields_that_there_are() -> None:
    page = (DOCS / "logs.md").read_text()
    examples = "\n".join(re.findall(r"```\w+\n(.*?)```", page, re.DOTALL))
    named = {
        name for line in examples.splitlines() if "event" in line for name in re.findall(r'"([a-z]+_[a-z_]+)"', line)
    }
    assert {"server_reachable", "gap_marked"} <= named <= EVENTS.keys() | {"decode_json_fields"}
    shown = set(re.findall(r"\{\{ ?\.(\w+) ?\}\}", examples))
    assert "after_seconds" in shown
    assert shown <= FIELDS.keys() | AUDIT_FIELDS.keys()


def test_each_state_has_its_event() -> None:
    """`WatcherState` says so of itself; the others are where a state is come to."""
    assert WatcherState.__module__ == "app.control.watcher_state"
    source = Path(DOCS.parent / "app/control/watcher_state.py").read_text()
    assert set(re.findall(r"`(watcher_\w+)`", source)) <= EVENTS.keys() | {"watcher_task"}
