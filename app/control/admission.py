"""Which watchers may run at all: by the rules of this service, beside the other watchers, and with what servers say.

`Rules` decides from values alone, so that every instance comes to the same answer. `Admission` also asks both servers,
before a change that somebody asks for is stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.control.fleet import Watched
from app.domain.errors import Conflict, Invalid
from app.domain.errors import FieldProblem as Problem
from app.domain.javascript import javascript_problem
from app.domain.namespaces import Namespaces
from app.domain.overlap import refuse_overlap
from app.domain.watcher import StoredWatcher, Watcher, outside, problems, problems_when_added
from app.pipeline.dependencies import Dependencies
from app.ports import Check, WatcherStore


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service's configuration allows a watcher."""

    state_database: str
    """Where Changewire keeps its own state: nothing there is watched."""
    allowed: Namespaces | None = None
    """The collections that may be used; None: all."""
    javascript: bool = False
    """Whether pipelines may run JavaScript in the server."""

    def problems(self, watcher: Watcher) -> list[Problem]:
        """List what is wrong with a watcher as far as it can be told without a server."""
        return problems(watcher, state_database=self.state_database, allowed=self.allowed, javascript=self.javascript)

    def fault(self, stored: StoredWatcher, others: Iterable[StoredWatcher]) -> str | None:
        """Why a stored watcher cannot run; None where it can. `others` are those that are not refused themselves.

        Of two that overlap the one that was added later is refused: all instances have to come to the same answer."""
        faults = [f"{each.field} {each.problem}" for each in self.problems(stored.watcher)]
        earlier = [one.watcher for one in others if _order(one) < _order(stored)]
        try:
            refuse_overlap(stored.watcher, earlier, in_file=stored.origin == "file")
        except Conflict as conflict:
            faults.append(str(conflict))
        return "; ".join(faults) or None

    def refuse_outside(self, stored: StoredWatcher, what: str) -> None:
        """Raise Conflict where a watcher uses a collection that is not allowed; `what` ends "NAME cannot …"."""
        found = [f"{each.field} {each.problem}" for each in outside(stored.watcher, self.allowed)]
        if found:
            raise Conflict(f"{stored.name} cannot {what}: {'; '.join(found)}")

    def refuse_javascript(self, stored: StoredWatcher, what: str) -> None:
        """Raise Conflict where a watcher's pipeline runs JavaScript that is not allowed; `what` as above."""
        found = None if self.javascript else javascript_problem(stored.watcher.source.pipeline)
        if found is not None:
            raise Conflict(f"{stored.name} cannot {what}: source.pipeline {found}")


class Admission:
    """What is looked at before a watcher is stored."""

    def __init__(
        self, rules: Rules, dependencies: Dependencies, store: WatcherStore, watchers: Mapping[str, Watched]
    ) -> None:
        self.rules = rules
        self._dependencies = dependencies
        self._store = store
        self._watchers = watchers

    async def check(self, watcher: Watcher, before: Watcher | None = None) -> None:
        """Refuse what cannot work; `before` is the watcher as it is stored. Raises Invalid, Conflict, Unavailable."""
        found = self.rules.problems(watcher)
        if before is None or before.sink.stream != watcher.sink.stream:
            found += [each for each in problems_when_added(watcher) if each.field not in {one.field for one in found}]
        if found:
            raise Invalid(problems=tuple(found))
        self.beside(watcher)(await self._store.load())
        await self._dependencies.mongo.check_source(watcher)
        if before is None or watcher.checkpoint != before.checkpoint:
            await self._dependencies.mongo.checkpoints(watcher).check()
        await self._dependencies.nats.check_sink(watcher)

    def beside(self, watcher: Watcher) -> Check:
        """A look at everything stored, at the moment of a change. A watcher that is refused itself does not count."""

        def check(stored: Sequence[StoredWatcher]) -> None:
            refused = {name for name, watched in self._watchers.items() if watched.refused}
            refuse_overlap(watcher, [one.watcher for one in stored if one.name not in refused])

        return check


def _order(stored: StoredWatcher) -> tuple[int, str]:
    return stored.added, stored.name
