"""Which collections may be watched, and keep positions, as the settings say: `shop.*,crm.contacts`.

Values only.
"""

import re
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

    def problems(self, database: str, collection: str, part: str) -> list[FieldProblem]:
        """Say which field of a watcher's `source` or `checkpoint` leads to a collection that is not among these."""
        within = [pattern for own, pattern in self.patterns if _fits(own, database)]
        if any(_fits(pattern, collection) for pattern in within):
            return []
        field, name = ("collection", f"{database}.{collection}") if within else ("database", database)
        use = "be watched" if part == "source" else "keep positions"
        problem = f"is {name}, which is not among the collections that may {use}: {self}"
        return [FieldProblem(f"{part}.{field}", problem)]

    def __str__(self) -> str:
        return ", ".join(f"{database}.{collection}" for database, collection in self.patterns)


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
