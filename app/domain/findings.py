"""What the doctor finds, as values. `doctor/` and the servers' packages find it, `cli/doctor.py` prints it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity. With a warning everything still works; with a problem something does not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_LEVELS = tuple(Level)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `about` is its subject (`MongoDB`, `NATS`, `orders`), `found` the result, and `advice` what to do,
    empty if there is nothing to do."""

    about: str
    check: str
    level: Level
    found: str
    advice: str = ""


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; OK where nothing was found."""
    return max((each.level for each in findings), key=_LEVELS.index, default=Level.OK)
