"""What a mutant is: a few lines of `app/` that are wrong, and what shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A piece of a file that is there exactly once, and what takes its place."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Mutant:
    """A way to get the protocol wrong, and what shows it: faults, or tests, of which one at least has to fail."""

    name: str
    faults: tuple[str, ...]
    edits: tuple[Edit, ...]
    minutes: float | None = None
    """For how long, where once is not enough."""
    says: str | None = None
    """What a problem of the run says where no stream shows it."""
    tests: tuple[str, ...] = ()
