"""Watchers and instances on a terminal: the tables of `changewire watchers` and `changewire instances`.

They are made of what the service answers. Text from servers and documents is shown with control characters escaped, so
that no message moves the cursor.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
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


ORDER = ("FAILED", "RETRYING", "FENCED", "STARTING", "PAUSED", "RUNNING")
"""The states as the page sorts them: what is in trouble first."""
TROUBLE = ("FAILED", "RETRYING")
NARROW = 120
"""Columns of a terminal that has room for less than everything."""
NAMED = 10
"""Watchers in trouble that are named below a table."""
REASON = 20
"""Columns that a reason has on a terminal at the least."""


def in_trouble(watcher: Mapping[str, Any]) -> bool:
    """Whether somebody should look at it; also where its instance could not be asked."""
    return watcher["status"]["state"] in TROUBLE or watcher["status"].get("as_of") is not None


def severity(watcher: Mapping[str, Any]) -> float:
    """Its place in a list: trouble first. A list that is by name stays so within each state."""
    status = watcher["status"]
    if status.get("as_of") is not None:
        return 1.5
    place = ORDER.index(status["state"]) if status["state"] in ORDER else -1
    return place - 0.1 * ((status.get("snapshot") or {}).get("state") == "failed")


def counted(watchers: Sequence[Mapping[str, Any]]) -> str:
    """Say how many watchers are in each state, and of those in trouble why: the end of a long list is what is in
    sight, and its rows have no room for a whole reason."""
    states = [each["status"]["state"] for each in watchers]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    troubled = [each for each in watchers if in_trouble(each)]
    lines = [f"{len(watchers)} watcher{'s' * (len(watchers) != 1)}: {counts}"]
    for each in troubled[:NAMED]:
        status = each["status"]
        silent = f"not heard of since {status['as_of']}" if status.get("as_of") else None
        lines.append(": ".join(str(part) for part in (each["name"], status["state"], status["reason"], silent) if part))
    if len(troubled) > NAMED:
        lines.append(f"and {len(troubled) - NAMED} more in trouble: changewire watchers list --trouble")
    return "\n".join(map(plain, lines))


def listing(watchers: Sequence[Mapping[str, Any]], lags: Mapping[str, Any], *, wide: bool = True) -> None:
    """Print one line for each watcher. A narrow terminal gets fewer columns, unless `wide`, and the beginning of a
    reason. Elsewhere, and where not even that fits, a line is as long as it is."""
    console = typed.console()
    wide = wide or console.width >= NARROW
    several = len({each["status"].get("instance") for each in watchers}) > 1
    snapshots = any(each["status"].get("snapshot") for each in watchers)
    names = [
        name
        for name, shown in {
            "name": True, "state": True, "instance": wide and several, "source": True, "stream": wide, "lag": True,
            "headroom": wide, "published": wide, "per second": True, "restarts": wide, "snapshot": snapshots,
        }.items()
        if shown
    ]  # fmt: skip
    rows = [_row(watcher, lags.get(watcher["name"]) or {}) for watcher in watchers]
    table = _table()
    for name in names:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    # rich would make every column narrower for the sake of one long reason.
    taken = sum(max(cell_len(name), *(cell_len(str(row[name])) for row in rows)) + 2 for name in names)
    fits = console.is_terminal and taken + REASON <= console.width
    table.add_column("reason", no_wrap=True, overflow="ellipsis", max_width=console.width - taken if fits else None)
    for row in rows:
        table.add_row(*(row[name] for name in names), row["reason"])
    if fits:
        console.print(table)
    else:
        typed.print_whole(table)


def _row(watcher: Mapping[str, Any], lag: Mapping[str, Any]) -> dict[str, str | Text]:
    status, source = watcher["status"], watcher["source"]
    return {
        "name": plain(watcher["name"]),
        "state": state(status["state"]),
        "instance": plain(status.get("instance") or "-"),
        "source": plain(f"{source['database'] or '*'}.{source['collection'] or '*'}"),
        "stream": plain(watcher["sink"]["stream"]),
        "lag": seconds(lag.get("seconds")),
        "headroom": seconds(lag.get("oplog_headroom_seconds")),
        "published": f"{status['events']['published']:,}",
        "per second": f"{status['rates']['last_60s']:g}",
        "restarts": str(status["restarts"]),
        "snapshot": plain(short(status.get("snapshot"))),
        "reason": plain(status["reason"] or ""),
    }


def letters(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each dead letter."""
    table = _table()
    collections = any(each["namespace"] for each in found)
    names = (
        "sequence",
        "time",
        "operation",
        *(("collection",) if collections else ()),
        "key",
        "bytes",
        "reason",
        "error",
    )
    for name in names:
        table.add_column(name, justify="right" if name in ("sequence", "bytes") else "left", overflow="fold")
    for each in found:
        table.add_row(
            str(each["sequence"]),
            plain(each["time"]),
            plain(each["operation"]),
            *((plain(each["namespace"] or "-"),) if collections else ()),
            plain("-" if each["document_key"] is None else json.dumps(each["document_key"], ensure_ascii=False)),
            f"{each['bytes']:,}",
            plain(each["reason"]),
            plain(each["error"]),
        )
    typed.console().print(table)


def letter(whole: Mapping[str, Any]) -> None:
    """Print all that is known of a dead letter, a line for each field, and its event."""
    table = _table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    fields = {name: value for name, value in whole.items() if name not in ("event", "bson")}
    for name, value in _flat(fields):
        table.add_row(name, value)
    typed.console().print(table)


def _table(*, show_header: bool = True) -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=show_header)


def instances(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each instance, the one that answered with a star."""
    table = _table()
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
    table = _table(show_header=False)
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
