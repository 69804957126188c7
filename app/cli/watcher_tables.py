"""Watchers and instances on a terminal: the tables of `changewire watchers` and `changewire instances`.

They are made of what the service answers. Text from servers and documents is shown with control characters escaped, so
that no message moves the cursor.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from app.cli import typed
from app.cli.snapshot_progress import short
from app.domain.plain import plain

STYLES = {
    "RUNNING": "green", "STARTING": "yellow", "RETRYING": "yellow", "PAUSED": "cyan", "FENCED": "cyan",
    "active": "green", "draining": "cyan", "stopping": "yellow",
}  # fmt: skip
"""Of watchers, and of instances. Every other state is an error."""
_NUMBERS = frozenset({"lag", "headroom", "published", "per second", "restarts", "watchers", "weight"})


def listing(watchers: Sequence[Mapping[str, Any]], lags: Mapping[str, Any]) -> None:
    """Print one line for each watcher."""
    several = len({each["status"].get("instance") for each in watchers}) > 1
    snapshots = any(each["status"].get("snapshot") for each in watchers)
    names = (
        "name",
        "state",
        *(("instance",) if several else ()),
        "source",
        "stream",
        "lag",
        "headroom",
        "published",
        "per second",
        "restarts",
        *(("snapshot",) if snapshots else ()),
        "reason",
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for watcher in watchers:
        status, lag = watcher["status"], lags.get(watcher["name"]) or {}
        source = watcher["source"]
        table.add_row(
            plain(watcher["name"]),
            state(status["state"]),
            *((plain(status.get("instance") or "-"),) if several else ()),
            plain(f"{source['database'] or '*'}.{source['collection'] or '*'}"),
            plain(watcher["sink"]["stream"]),
            seconds(lag.get("seconds")),
            seconds(lag.get("oplog_headroom_seconds")),
            f"{status['events']['published']:,}",
            f"{status['rates']['last_60s']:g}",
            str(status["restarts"]),
            *((plain(short(status.get("snapshot"))),) if snapshots else ()),
            plain(status["reason"] or ""),
        )
    typed.console().print(table)


def instances(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each instance, the one that answered with a star."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("name", "state", "watchers", "per second", "weight", "since", "seen", "version", "reason"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for each in found:
        table.add_row(
            plain(f"{each['name']}{'*' if each['self'] else ''}"),
            state(each["state"]),
            f"{each['watchers']:,}",
            f"{each['events_per_second']:g}",
            f"{each['weight']:g}",
            plain(each["since"]),
            plain(each["seen"]),
            plain(each["version"]),
            plain(each["reason"] or (f"as of {each['as_of']}" if each["as_of"] else "")),
        )
    typed.console().print(table)


def one(watcher: Mapping[str, Any], lag: Mapping[str, Any], position: Mapping[str, Any] | None) -> None:
    """Print all that is known of a watcher, a line for each field."""
    status = watcher["status"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("name", Text(plain(watcher["name"]), "bold"))
    table.add_row("state", state(status["state"]))
    rest = {name: value for name, value in watcher.items() if name not in ("name", "status")}
    said = {name: value for name, value in status.items() if name != "state"}
    for part in (said, {"lag": lag}, {"position": position}, rest):
        for name, value in _flat(part):
            table.add_row(name, value)
    typed.console().print(table)


REMARKS = {
    "trouble": "the service cannot read the stream: {reason}",
    "skipped": "messages between #{after} and #{before} are left out: there are too many",
}
"""What the service sends beside messages, and how it is said."""


def remark(kind: str, data: Mapping[str, Any]) -> str:
    """One of REMARKS as a line."""
    return plain(f"-- {REMARKS[kind].format_map(data)}")


def message(data: Mapping[str, Any]) -> str:
    """One message in a line: sequence, time, subject, body."""
    body = data.get("body")
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return plain(f"#{data.get('sequence')} {data.get('time')} {data.get('subject')} {text}")


def state(name: str) -> Text:
    return Text(plain(name), STYLES.get(name, "bold red"))


def seconds(value: float | None) -> str:
    """A length of time; a dash where it is not known."""
    if value is None:
        return "-"
    return f"{value:.1f} s" if value < 600 else f"{value / 3600:.1f} h"


def _flat(part: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in part.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            rows.append((plain(f"{prefix}{name}"), plain(value)))
        elif value is not None:
            rows.append((plain(f"{prefix}{name}"), plain(json.dumps(value, ensure_ascii=False))))
    return rows
