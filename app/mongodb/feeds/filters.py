"""Which collections a feed asks the server for, chosen by what was measured (decision 0040).

A database's stream without a filter costs the server the same for one collection as for a thousand. A filter by names
costs more with each name, and saves the transfer and the look-up of what nobody wants. So there is none until much of
what comes is dropped here. Then the wanted collections are asked for where they are few, or else those are left out of
which most was dropped. What the filter lets through too much is dropped here all the same.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

FEW: Final = 200
"""Up to so many names the server is asked for them: with more, looking through the names costs it more than reading."""
WASTE: Final = 0.5
"""The part of the events that has to be dropped before a filter is worth opening the stream again."""
LEAST: Final = 2_000
"""Events by which the part is known."""
NAMED: Final = 50
"""The most collections that are left out by name."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The collections that are asked for, or those that are left out; with neither, all."""

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def covers(self, collection: str) -> bool:
        return collection not in self.without if self.only is None else collection in self.only

    def stages(self) -> tuple[dict[str, Any], ...]:
        """The pipeline. A rename is let through for the name that a collection gets by it."""
        if self.only is not None:
            wanted = {"$in": sorted(self.only)}
            return ({"$match": {"$or": [{"ns.coll": wanted}, {"to.coll": wanted}]}},)
        if self.without:
            return ({"$match": {"$or": [{"ns.coll": {"$nin": sorted(self.without)}}, {"operationType": "rename"}]}},)
        return ()


class Waste:
    """What came and was dropped since the filter was chosen."""

    def __init__(self) -> None:
        self._came = 0
        self._dropped: Counter[str] = Counter()

    def came(self, events: int) -> None:
        self._came += events

    def dropped(self, collection: str, events: int) -> None:
        self._dropped[collection] += events

    @property
    def tells(self) -> bool:
        """Whether enough has come to choose by."""
        return self._came >= LEAST

    def better(self, now: Filter, wanted: Collection[str]) -> Filter | None:
        """Return the filter that is worth opening the stream again, or None. Counts afresh now and then."""
        if not self.tells:
            return None
        came = self._came
        dropped = Counter({name: count for name, count in self._dropped.items() if name not in wanted})
        self._came, self._dropped = 0, Counter()
        if sum(dropped.values()) < WASTE * came:
            return None
        if len(wanted) <= FEW:
            return Filter(only=frozenset(wanted))
        most = [name for name, _ in dropped.most_common(NAMED)]
        known = sorted(now.without - set(wanted))[: NAMED - len(most)]
        return Filter(without=frozenset([*most, *known]))
