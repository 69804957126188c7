"""Which change stream each watcher can read from: one that it shares with others of its database, or its own, and why.

The reasons are those that the status gives (`reads_why`). What only a running service knows, such as a watcher that
catches up, is not known here.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from app.domain.findings import Finding, Level
from app.domain.watcher import Watcher
from app.mongodb.deployment import SWITCHED_OFF
from app.mongodb.entries_source import WHY_OWN
from app.mongodb.feeds.eligible import Kind, kind_of, why_own
from app.mongodb.feeds.group import ALONE, FEW
from app.mongodb.privileges import Privileges

CHECK: Final = "change stream"
WATCH: Final = ("find", "changeStream")
"""What the account needs on a collection or a database to watch it."""


class Sharing:
    """Made of all watchers, since they share with one another."""

    def __init__(self, watchers: Iterable[Watcher], privileges: Privileges, *, share: bool) -> None:
        """`share` is CHANGEWIRE_SHARED_STREAMS."""
        self._privileges = privileges
        self._share = share
        self._groups = Counter[Kind](kind_of(each) for each in watchers if self._why_own(each) is None)

    def streams(self, watchers: Iterable[Watcher]) -> int:
        """How many change streams all of them need, where one instance runs them."""
        own = sum(self._why_own(each) is not None for each in watchers)
        return own + sum(1 if self._shares(kind) else count for kind, count in self._groups.items())

    def _shares(self, kind: Kind) -> bool:
        return self._groups[kind] >= FEW and not self._privileges.missing(kind.database, "", WATCH)

    def found(self, watcher: Watcher, where: str) -> Finding:
        """Say what a watcher whose change stream opens will read from. `where` names what it watches."""
        opens = f"opens on {where}"
        why = self._why_own(watcher)
        if why is not None:
            return Finding(watcher.name, CHECK, Level.OK, f"{opens}, its own: {why}")
        kind = kind_of(watcher)
        count = self._groups[kind]
        if count < FEW:
            return Finding(watcher.name, CHECK, Level.OK, f"{opens}, its own: {ALONE}")
        lacking = self._privileges.missing(kind.database, "", WATCH)
        if lacking:
            return Finding(
                watcher.name, CHECK, Level.WARNING,
                f"{opens}, its own: the MongoDB account may not watch the database {kind.database} as a whole: it "
                f"lacks {', '.join(lacking)}",
                f"grant it the role read on {kind.database}, so that its {count} watchers share one change stream; or "
                "nothing, if they are few",
            )  # fmt: skip
        return Finding(watcher.name, CHECK, Level.OK, f"{opens}, shared by {count} watchers")

    def _why_own(self, watcher: Watcher) -> str | None:
        if watcher.entries:
            return WHY_OWN
        return why_own(watcher) if self._share else SWITCHED_OFF
