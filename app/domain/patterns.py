"""Patterns of names, as a source's `include` and `exclude` have them: `orders_*`, `shop.*`, `shop.orders_?`.

`*` stands for any characters, also none, and also dots; `?` for one character. Every other character stands for itself.
Where a whole deployment is watched, a pattern has two parts, divided by its first dot: a database's name holds none.

How it works. A pattern becomes one regular expression, which Python and MongoDB's server both read, so that both choose
the same collections. Between two stars the first place that fits is as good as any later one. So each piece is in an
atomic group: nothing is tried again, and no pattern takes long, however many stars it has.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

EVERY: Final = "*"
_WILD: Final = re.compile(r"[*?]")


class Pattern(NamedTuple):
    """One entry of a list, in its two parts."""

    database: str
    collection: str

    def has(self, database: str, collection: str) -> bool:
        return matches(self.database, database) and matches(self.collection, collection)


def parse(entry: str, database: str) -> Pattern:
    """Return an entry in two parts; `database` is the one that is watched, or empty for the deployment."""
    if database:
        return Pattern(database, entry)
    before, _, after = entry.partition(".")
    return Pattern(before, after)


def is_name(pattern: str) -> bool:
    """Whether a pattern is one name: it has no wildcard."""
    return _WILD.search(pattern) is None


def expression(pattern: str, *, end: str) -> str:
    r"""Return a pattern as a regular expression for names in which a dot matches any character (the option `s`).

    `end` is how the reader writes the end of the text: `\Z` in Python, `\z` in MongoDB."""
    first, *rest = (_literally(piece) for piece in re.split(r"\*+", pattern))
    if not rest:
        return f"^{first}{end}"
    *between, last = rest
    inner = "".join(f"(?>.*?{piece})" for piece in between)
    return f"^{first}{inner}" + (f".*{last}{end}" if last else "")


def _literally(piece: str) -> str:
    return ".".join(map(re.escape, piece.split("?")))


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern."""
    return pattern == EVERY or _compiled(pattern).match(name) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(expression(pattern, end=r"\Z"), re.DOTALL)


def covers(wide: str, narrow: str) -> bool:
    """Whether every name that fits `narrow` fits `wide`, as far as can be seen from the patterns: no where in doubt."""
    if is_name(narrow):
        return matches(wide, narrow)
    # Its wildcards become characters that no name has, so that only a star stands for a star.
    return matches(wide.replace("?", "\1"), narrow.replace("*", "\0").replace("?", "\1"))


def meet(one: str, other: str) -> bool:
    """Whether some name fits both patterns."""
    reached = {0}  # the places in `other` that the part of `one` so far can have led to
    for character in one:
        reached = _closed(reached, other)
        if character == "*":
            reached = set(range(min(reached, default=len(other) + 1), len(other) + 1))
            continue
        reached = {
            place if other[place] == "*" else place + 1
            for place in reached
            if place < len(other) and (other[place] in ("*", "?", character) or character == "?")
        }
    return len(other) in _closed(reached, other)


def _closed(places: set[int], pattern: str) -> set[int]:
    """Return the places with those behind their stars, which may stand for nothing."""
    found = set(places)
    for place in sorted(places):
        while place < len(pattern) and pattern[place] == "*":
            place += 1
            found.add(place)
    return found


class Choice:
    """The collections that are watched in a database or a deployment: those included, without those excluded."""

    def __init__(self, database: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        """`database` is the one that is watched, or empty for the deployment. No `include`: all."""
        self.include = tuple(parse(entry, database) for entry in include) or (Pattern(database or EVERY, EVERY),)
        self.exclude = tuple(parse(entry, database) for entry in exclude)

    def has(self, database: str, collection: str) -> bool:
        return any(each.has(database, collection) for each in self.include) and not any(
            each.has(database, collection) for each in self.exclude
        )

    def has_of(self, database: str) -> bool:
        """Whether a collection of this database may be among them."""
        return any(matches(each.database, database) for each in self.include) and not any(
            each.collection == EVERY and matches(each.database, database) for each in self.exclude
        )


@lru_cache(maxsize=4096)
def choice(database: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> Choice:
    """Return the choice that these make; made once."""
    return Choice(database, include, exclude)
