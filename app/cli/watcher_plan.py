"""What `changewire watchers apply` and `replace` do: compare definitions with the service's watchers, try out what has
to change, then change it.

1. Compare. The service's watchers are read once. A definition is equal where `domain/watcher.py` makes the same watcher
   of both. Nothing is sent for it: a replaced watcher restarts.
2. Try. All that is new is sent as one list and each other one as a PUT, with `dry_run`. Where one is refused, nothing
   has changed, and every error is known. The answers have all defaults filled in, so they also say what would change.
3. Change. What is new is added in one change. A watcher is replaced only while it has the revision that was compared.

Whether a watcher is paused is not a part of what it is: where a definition does not say it, it stays so.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from app.cli.http_client import Refused, Service, watcher_path
from app.cli.watcher_files import Definition, with_names
from app.domain.watcher import from_document, to_document

REFUSED = (409, 412, 413, 422)
"""Statuses of a request that is wrong in itself; with any other one nothing is tried any further."""
MOST = 1000
"""Watchers of one request."""
SHOWN = 300
"""Characters of a value in a line that says what changes."""
_KNOWN = frozenset({"name", "source", "sink", "checkpoint", "start", "on_history_lost", "snapshot", "paused", "status"})


class Result(StrEnum):
    """What happens to a watcher."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Change:
    """A field that has another value afterwards; None: it has none."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.before)} → {_shown(self.after)}"


@dataclass(slots=True)
class Step:
    """One definition, and what it makes of the watcher of its name. Both watchers are as the service answers them."""

    wanted: Definition
    result: Result
    before: dict[str, Any] | None = None
    revision: str | None = None
    after: dict[str, Any] | None = None
    done: bool = field(default=False)

    @property
    def changes(self) -> list[Change]:
        """The fields that change, where there was a watcher before."""
        if self.before is None or self.after is None:
            return []
        before, after = _flat(self.before), _flat(self.after)
        names = [*before, *(name for name in after if name not in before)]
        return [
            Change(name, before.get(name), after.get(name))
            for name in names
            if not _same(before.get(name), after.get(name))
        ]

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        document = self.wanted.document
        return document if self.before is None else {"paused": self.before["paused"]} | document


class NotApplied(Exception):
    """Some definitions are refused. `lines` say why, one for each field."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


def plan(service: Service, wanted: Sequence[Definition], *, there: bool = False) -> list[Step]:
    """Compare and try. `there`: each watcher has to exist. Raises NotApplied, CommandError."""
    found = service.call("GET", "/watchers")
    known: dict[str, dict[str, Any]] = {each["name"]: each for each in found}
    missing = [each for each in wanted if each.name not in known] if there else []
    if missing:
        raise NotApplied([f"{each.label}: there is no such watcher; add it with watchers add" for each in missing])
    steps = [_step(service, each, known.get(each.name or "")) for each in wanted]
    lines = _create(service, steps, dry_run=True)
    for step in (each for each in steps if each.result is Result.REPLACED):
        lines += _replace(service, step, dry_run=True)
        if step.after is not None and not step.changes:
            step.result = Result.UNCHANGED
    if lines:
        raise NotApplied(lines)
    return steps


def carry_out(service: Service, steps: Sequence[Step], tell: Callable[[Step], None]) -> None:
    """Make the changes, and tell of each step once it is done. Raises NotApplied for those that were refused after all.

    What was done stays done: the same call again does the rest."""
    lines = _create(service, steps, dry_run=False)
    for step in steps:
        if step.result is Result.REPLACED:
            lines += _replace(service, step, dry_run=False)
        if step.done or step.result is Result.UNCHANGED:
            tell(step)
    if lines:
        raise NotApplied(lines)


def _step(service: Service, wanted: Definition, now: dict[str, Any] | None) -> Step:
    if now is None:
        return Step(wanted, Result.CREATED)
    if not differs(wanted.document, now):
        return Step(wanted, Result.UNCHANGED, now)
    now, revision = service.read(watcher_path(now["name"]))
    return Step(wanted, Result.REPLACED, now, revision)


def _create(service: Service, steps: Sequence[Step], *, dry_run: bool) -> list[str]:
    """Add what is new, in one change; return what is wrong."""
    new = [step for step in steps if step.result is Result.CREATED]
    lines: list[str] = []
    for begin in range(0, len(new), MOST):
        part = new[begin : begin + MOST]
        bodies = [step.body for step in part]
        try:
            added = service.call("POST", _tried("/watchers", dry_run), bodies if len(bodies) > 1 else bodies[0])
        except Refused as error:
            if error.status not in REFUSED:
                raise
            lines += with_names(error.lines, [step.wanted.label for step in part])
            continue
        for step, after in zip(part, added if isinstance(added, list) else [added], strict=True):
            step.after, step.done = after, not dry_run
    return lines


def _replace(service: Service, step: Step, *, dry_run: bool) -> list[str]:
    assert step.before is not None
    name = step.before["name"]
    try:
        step.after = service.call("PUT", _tried(watcher_path(name), dry_run), step.body, revision=step.revision)
    except Refused as error:
        if error.status not in REFUSED:
            raise
        lines = ["somebody has changed it meanwhile; repeat the command"] if error.status == 412 else error.lines
        return list(with_names(lines, [name]))
    step.done = not dry_run
    return []


def _tried(path: str, dry_run: bool) -> str:
    return f"{path}?dry_run=true" if dry_run else path


def differs(definition: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the service has to be asked about a definition of a watcher that it has: it says something else, or
    something that is not known here."""
    if "paused" in definition and definition["paused"] is not now["paused"]:
        return True
    if _beside(definition, now) or not set(now) <= _KNOWN:
        return True
    try:
        return not _same(to_document(from_document(definition)), to_document(from_document(now)))
    except (AttributeError, KeyError, TypeError, ValueError):
        return True


def _beside(given: Any, known: Any) -> bool:
    """Whether a definition has a field that the service's answer does not have."""
    if not isinstance(given, Mapping) or not isinstance(known, Mapping):
        return False
    return any(name not in known or _beside(value, known[name]) for name, value in given.items() if name != "status")


def exported(watcher: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shortest definition of a watcher that `apply` finds unchanged: without what is the default.

    One that this version does not know all of is returned whole."""
    whole = {name: value for name, value in watcher.items() if name != "status"}
    try:
        short = _short(whole)
    except (AttributeError, KeyError, TypeError, ValueError):
        return whole
    return whole if differs(short, watcher) else short


def _short(watcher: Mapping[str, Any]) -> dict[str, Any]:
    place = {name: watcher["source"][name] for name in ("database", "collection") if watcher["source"].get(name)}
    usual = asdict(from_document({"name": watcher["name"], "source": place}))
    short: dict[str, Any] = {
        "name": watcher["name"],
        "source": place | _unusual(watcher["source"], usual["source"], ("database", "collection")),
        "sink": {"stream": watcher["sink"]["stream"]} | _unusual(watcher["sink"], usual["sink"], ("stream",)),
    }
    if watcher["checkpoint"] is not None:
        short["checkpoint"] = dict(watcher["checkpoint"])
    if watcher["start"] != {"at": "latest"}:
        short["start"] = watcher["start"]
    short |= {name: watcher[name] for name in ("on_history_lost", "snapshot") if watcher[name] != usual[name]}
    return short | ({"paused": True} if watcher["paused"] else {})


def _unusual(part: Mapping[str, Any], usual: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in without and not _same(value, usual[name])}


def _flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A watcher's fields by their path, as far as they have a value; lists are values."""
    fields: dict[str, Any] = {}
    for name, value in part.items():
        if prefix == "" and name == "status":
            continue
        if isinstance(value, Mapping):
            fields |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            fields[f"{prefix}{name}"] = value
    return fields


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same as JSON. The order of an object's fields counts: a pipeline depends on it."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def lines_of(step: Step) -> Iterator[str]:
    """Say what a step does, or has done: a line, and one for each field that changes."""
    name = step.wanted.label
    if step.result is Result.UNCHANGED:
        yield f"{name}: unchanged"
    elif not step.done:
        yield f"{name}: would be {step.result}"
    else:
        yield f"{name}: {step.result}, {(step.after or {})['status']['state']}"
    yield from (f"  {change}" for change in step.changes)


def summary(steps: Sequence[Step]) -> str:
    """Count the results: `1 created, 2 unchanged`."""
    counts = [(sum(step.result is result for step in steps), result) for result in Result]
    return ", ".join(f"{count} {result}" for count, result in counts if count)


def as_json(step: Step) -> dict[str, Any]:
    """What a step does, for programs."""
    changes = [{"field": each.field, "before": each.before, "after": each.after} for each in step.changes]
    return {"name": step.wanted.name, "result": step.result, "changes": changes}
