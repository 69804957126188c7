"""The expressions of `deploy/`, and which metrics and labels each of them names.

No parser: promtool is that. Here an expression is taken apart as far as its names go.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = DEPLOY / "prometheus" / "rules" / "changewire.yml"

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset"})


@dataclass(frozen=True)
class Expression:
    """One expression, and where it stands."""

    place: str
    text: str
    legend: str = ""

    def metrics(self) -> dict[str, set[str]]:
        """The metrics, each with the labels that its matchers name."""
        rest = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", self.text))
        found: dict[str, set[str]] = {}
        for match in _SELECTOR.finditer(rest):
            name, matchers = match.group(1), match.group(2)
            if name in _WORDS or rest[match.end() :].lstrip().startswith("("):
                continue
            labels = _MATCHER.findall(re.sub(r'"[^"]*"', '""', matchers or ""))
            found.setdefault(name, set()).update(labels)
        return found

    def grouped(self) -> set[str]:
        """The labels by which it groups and matches, and those that its legend shows."""
        lists = [*_GROUPING.findall(self.text)]
        names = {each.strip() for one in lists for each in one.split(",") if each.strip()}
        return names | set(re.findall(r"\{\{(\w+)\}\}", self.legend))


def alerts() -> list[dict[str, Any]]:
    """The rules as they are written."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def of_rules() -> Iterator[Expression]:
    for rule in alerts():
        yield Expression(rule["alert"], rule["expr"])


def of_dashboards() -> Iterator[Expression]:
    """The panels' and the variables' expressions."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(f"{path.name}: {panel['title']}", target["expr"], target["legendFormat"])
        for variable in board["templating"]["list"]:
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", ""))
            if found is not None:
                yield Expression(f"{path.name}: ${variable['name']}", f"count by ({found[2]}) ({found[1]})")
