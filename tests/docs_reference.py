"""The parts of the documentation that are taken from the code: settings, metrics, log events, the help of each command.

`python -m tests.docs_reference` (or `make docs`) writes them between the markers in `docs/settings.md`,
`docs/metrics.md`, `docs/logs.md` and `docs/commands.md`; what stands around the markers is written by hand. A test
compares, so that none goes stale.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from app.cli import program
from app.config.log_events import AUDIT_FIELDS, FIELDS, SECTIONS
from app.config.settings import Settings, variable, variables
from app.config.tracing import TracingSettings
from app.metrics.families import Families
from app.metrics.kinds import CounterFamily, Family, GaugeFamily, HistogramFamily
from tests.log_lines import LEVELS, LogLine, log_lines

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- from the code; make docs writes it -->", "<!-- the end of what is from the code -->"
KINDS: dict[type[Family], str] = {CounterFamily: "counter", GaugeFamily: "gauge", HistogramFamily: "histogram"}


def descriptions() -> dict[str, str]:
    """The text below each setting. Taken from the source: at run time it would cost every start a tenth of its time."""
    bodies = [ast.parse(inspect.getsource(each)).body[0] for each in (Settings, TracingSettings)]
    return {
        field.target.id: text.value.value
        for settings in bodies
        if isinstance(settings, ast.ClassDef)
        for field, text in pairwise(settings.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def in_order() -> list[tuple[str, FieldInfo]]:
    """The settings as they are declared, those of traces last."""
    return sorted(Settings.model_fields.items(), key=lambda each: each[0] in TracingSettings.model_fields)


def settings_table() -> str:
    """A row for each setting."""
    described, known = descriptions(), set(variables())
    rows = []
    for name, field in in_order():
        names = [each for each in (variable(name), f"{variable(name)}_FILE") if each in known]
        example = str((field.examples or [""])[0])
        shown = example if example.startswith(("(", "the ")) else _code(example)
        rows.append((", ".join(map(_code, names)), " ".join(described[name].split()), shown))
    return _table(("variable", "meaning", "example"), rows)


def metrics_table() -> str:
    """A row for each metric: the service's own by name, then those that mongodb-nats-connector has."""
    families = sorted(Families(), key=lambda family: (not family.name.startswith("changewire_"), family.name))
    rows = [
        (_code(family.name), KINDS[type(family)], ", ".join(map(_code, family.labels)), family.text)
        for family in families
    ]
    return _table(("metric", "type", "labels", "meaning"), rows)


def logs_tables() -> str:
    """A table for each part of the catalogue, then one of the fields, and one of the audit log's."""
    found: dict[str, list[LogLine]] = {}
    for line in log_lines():
        found.setdefault(line.event, []).append(line)
    parts = []
    for title, events in SECTIONS.items():
        rows = []
        for name, event in events.items():
            lines = found.get(name, [])
            levels = sorted({line.level for line in lines}, key=LEVELS.index) or ["warning, error"]
            fields = dict.fromkeys(field for line in lines for field in line.fields)
            if any(line.open for line in lines):
                shown = "[its own](#fields-of-the-audit-log)"
            else:
                shown = ", ".join(map(_code, fields)) or ("`message`" if not lines else "")
            rows.append((_code(name), ", ".join(levels), event.says, event.advice, shown))
        parts.append(f"## {title}\n\n{_table(('event', 'level', 'says', 'what to do', 'fields'), rows)}")
    named = _table(("field", "meaning"), ((_code(name), text) for name, text in FIELDS.items()))
    audit = _table(("field", "meaning"), ((_code(name), text) for name, text in AUDIT_FIELDS.items()))
    parts += [f"## Fields\n\n{named}", f"## Fields of the audit log\n\n{audit}"]
    return "\n".join(parts)


def helps() -> dict[str, str]:
    """The help of each command, by the command as it is typed, in the order of the parser."""

    def below(context: Any) -> Iterator[tuple[str, str]]:
        command = context.command
        yield context.command_path, command.get_help(context).rstrip()
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            inner = command.get_command(context, name)
            yield from below(inner.make_context(name, [], parent=context, resilient_parsing=True))

    settings = {"terminal_width": program.WIDTH, "resilient_parsing": True}
    return dict(below(program.tree().make_context("changewire", [], **settings)))


def commands_helps() -> str:
    """A heading and the help for each command."""
    return "\n".join(f"### {name}\n\n```text\n{text}\n```\n" for name, text in helps().items())


REFERENCES: dict[str, Callable[[], str]] = {
    "settings.md": settings_table,
    "metrics.md": metrics_table,
    "logs.md": logs_tables,
    "commands.md": commands_helps,
}


def renewed(page: str, text: str) -> str:
    """The page with what is between its markers taken from the code. Raises ValueError where it has no markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/{page} has to hold these two lines: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{REFERENCES[page]()}\n{END}{after}"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        for row in (head, tuple("---" for _ in head), *rows):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n"

    return "".join(lines())


def main() -> int:
    for page in REFERENCES:
        path = DOCS / page
        path.write_text(renewed(page, path.read_text()))

    from tests import deploy_reference  # which takes the settings' texts from here

    return deploy_reference.main()


if __name__ == "__main__":
    sys.exit(main())
