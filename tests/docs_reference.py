"""The parts of the documentation that are taken from the code: the settings, and the metrics.

`python -m tests.docs_reference` (or `make docs`) writes them between the markers in `docs/settings.md` and
`docs/metrics.md`; what stands around the markers is written by hand. A test compares, so that neither goes stale.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from app.config.settings import Settings, variable, variables
from app.config.tracing import TracingSettings
from app.metrics.families import Families
from app.metrics.kinds import CounterFamily, Family, GaugeFamily, HistogramFamily

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


def settings_table() -> str:
    """A row for each setting, in the order of their declaration, those of traces last."""
    described, known = descriptions(), set(variables())
    rows = []
    for name, field in sorted(Settings.model_fields.items(), key=lambda each: each[0] in TracingSettings.model_fields):
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


REFERENCES: dict[str, Callable[[], str]] = {"settings.md": settings_table, "metrics.md": metrics_table}


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
