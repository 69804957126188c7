"""What an examination of a set-up finds, in the form in which it is shown.

Values only. Not its business: finding out (`doctor/` and the servers' packages), and how it is printed
(`app/cli/doctor.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. A warning keeps nothing from working now; a problem does."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_LEVELS = tuple(Level)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `about` is whose it is (`MongoDB`, `NATS`, `orders`), `found` what is so, and
    `advice` what to do, empty where there is nothing to do."""

    about: str
    check: str
    level: Level
    found: str
    advice: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; OK where nothing was found."""
    return max((each.level for each in findings), key=_LEVELS.index, default=Level.OK)
