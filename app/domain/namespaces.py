"""Which collections may be watched, and keep positions, as the settings say: `shop.*,crm.contacts`.

Values only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.errors import FieldProblem


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Patterns of `database.collection`, in which `*` stands for any characters of its part."""

    patterns: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> "Namespaces":
        """Read patterns separated by commas. Raises ValueError with a sentence."""
        entries = [each.strip() for each in text.split(",") if each.strip()]
        for entry in entries:
            database, _, collection = entry.partition(".")
            if not database or not collection:
                raise ValueError(f"has {entry[:100]!r}, which is not database.collection")
        if not entries:
            raise ValueError("has no database.collection")
        return cls(tuple((entry.partition(".")[0], entry.partition(".")[2]) for entry in entries))

    def has(self, database: str, collection: str | None = None) -> bool:
        """Whether a collection is among these; without one, whether some collection of the database may be."""
        within = [pattern for own, pattern in self.patterns if _fits(own, database)]
        return any(collection is None or _fits(pattern, collection) for pattern in within)

    def problems(self, database: str, collection: str, part: str) -> list[FieldProblem]:
        """Say which field of a watcher's `source` or `checkpoint` leads to a collection that is not among these."""
        within = [pattern for own, pattern in self.patterns if _fits(own, database)]
        if any(_fits(pattern, collection) for pattern in within):
            return []
        field, name = ("collection", f"{database}.{collection}") if within else ("database", database)
        use = "be watched" if part == "source" else "keep positions"
        problem = f"is {name}, which is not among the collections that may {use}: {self}"
        return [FieldProblem(f"{part}.{field}", problem)]

    def scope_problems(
        self, database: str, wanted: Sequence[tuple[str, str]], include: Sequence[str]
    ) -> list[FieldProblem]:
        """Say which of a scope's patterns lead to collections that are not among these.

        `wanted` are its patterns in two parts, `include` the same as written; empty where all is watched."""
        found = []
        for index, (of_database, of_collection) in enumerate(wanted):
            if self._has_all(_opaque(of_database), _opaque(of_collection)):
                continue
            field = f"include.{index}" if include else "database"
            what = f"is {include[index]}" if include else f"is all of {database}" if database else "is left out"
            problem = f"{what}, which goes beyond the collections that may be watched: {self}"
            advice = "" if include else "; name them in source.include"
            found.append(FieldProblem(f"source.{field}", problem + advice))
        return found

    def _has_all(self, database: str, collection: str) -> bool:
        return any(_fits(own, database) and _fits(pattern, collection) for own, pattern in self.patterns)

    def __str__(self) -> str:
        return ", ".join(f"{database}.{collection}" for database, collection in self.patterns)


def _opaque(pattern: str) -> str:
    """Return a pattern as a name in which only a star fits the wildcards."""
    return pattern.replace("*", "\0").replace("?", "\0")


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
