"""The log lines that `app/` can write, collected from its source: event, level and fields of each.

A line is `log.warning("event", field=…)`: the logger is called `log`, and level and event are literals, so that nothing
has to run to know them. `stray_lines` finds what is written in another way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"
LEVELS = ("debug", "info", "warning", "error", "critical")
LATER = frozenset({"exc_info"})
"""What a processor makes another field of."""


class LogLine(NamedTuple):
    """One call. `fields` are in the order of the call; `open` says that there are others that it does not name."""

    event: str
    level: str
    fields: tuple[str, ...]
    open: bool
    where: str


def log_lines() -> list[LogLine]:
    """Every log line of `app/`, by file and line."""
    return [line for path in sorted(APP.rglob("*.py")) for line in _lines(path)]


def stray_lines() -> list[str]:
    """Where a logger is used in another way than `log.<level>("event", …)`."""
    return [f"{path.relative_to(ROOT)}:{node.lineno}" for path in sorted(APP.rglob("*.py")) for node in _strays(path)]


def _lines(path: Path) -> Iterator[LogLine]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not _is_line(node):
            continue
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Attribute)
        (event,) = node.args
        assert isinstance(event, ast.Constant)
        assert isinstance(event.value, str)
        named = [word.arg for word in node.keywords if word.arg is not None]
        fields = tuple("exception" if name in LATER else name for name in named)
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        yield LogLine(event.value, node.func.attr, fields, len(named) < len(node.keywords), where)


def _strays(path: Path) -> Iterator[ast.expr]:
    tree = ast.parse(path.read_text())
    known: set[int] = set()
    for node in ast.walk(tree):
        if _is_line(node):
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Attribute)
            known.add(id(node.func.value))
        if isinstance(node, ast.Assign) and _makes_logger(node.value):
            (target,) = node.targets
            if isinstance(target, ast.Name) and target.id == "log":
                known |= {id(target), id(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "log" and id(node) not in known and _is_logger(tree):
            yield node
        if isinstance(node, ast.expr) and _makes_logger(node) and id(node) not in known:
            yield node


def _is_line(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr in LEVELS
        and len(node.args) == 1
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def _is_logger(tree: ast.Module) -> bool:
    """Whether `log` is a logger in this module."""
    return any(isinstance(node, ast.expr) and _makes_logger(node) for node in ast.walk(tree))


def _makes_logger(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get_logger"
