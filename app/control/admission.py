"""Which watchers may run at all: by the rules of this service, beside the other watchers, and with what servers say.

`Rules` decides from values alone, so that every instance comes to the same answer. `Admission` also asks both servers,
before a change that somebody asks for is stored.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from app.control.fleet import Fleet
from app.control.refusals import Refusals
from app.domain.errors import ChangewireError, Conflict
from app.domain.errors import FieldProblem as Problem
from app.domain.javascript import javascript_problem
from app.domain.namespaces import Namespaces
from app.domain.overlap import refuse_overlap
from app.domain.overlap_index import OverlapIndex, order
from app.domain.subjects import overlap
from app.domain.text import HALF
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
    between_instances: tuple[str, ...] = ()
    """The subjects by which instances ask each other, as patterns: a stream must not take them."""

    def problems(self, watcher: Watcher) -> list[Problem]:
        """List what is wrong with a watcher as far as it can be told without a server."""
        return problems(watcher, state_database=self.state_database, allowed=self.allowed, javascript=self.javascript)

    def taken(self, watcher: Watcher) -> list[Problem]:
        """Say where a watcher that is added, or gets other subjects, takes some of those between instances."""
        if not any(overlap(watcher.space, each) for each in self.between_instances):
            return []
        why = "takes subjects by which the instances ask each other (CHANGEWIRE_NATS_PREFIX); choose another beginning"
        return [Problem("sink.subject", why)]

    def fault(self, stored: StoredWatcher, fleet: Fleet) -> str | None:
        """Why a stored watcher cannot run; None where it can. Those that are refused themselves do not count.

        Of two that overlap the one that was added later is refused: all instances have to come to the same answer."""
        faults = [f"{each.field} {each.problem}" for each in self.problems(stored.watcher)]

        def earlier(other: StoredWatcher) -> bool:
            return order(other) < order(stored) and not fleet[other.name].refused

        try:
            refuse_overlap(stored.watcher, _Beside(fleet.index, earlier), in_file=stored.origin == "file")
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

    def __init__(self, rules: Rules, dependencies: Dependencies, store: WatcherStore, fleet: Fleet) -> None:
        self.rules = rules
        self._dependencies = dependencies
        self._store = store
        self._fleet = fleet

    async def check(
        self, watcher: Watcher, found: Refusals, before: Watcher | None = None, *, ask: bool = True
    ) -> str | None:
        """Look at everything that could keep a watcher from working, and put it into `found`; `before` is the watcher
        as it is stored. Return the token of the present; None where MongoDB was not asked, or refuses the source.

        Servers are asked about the parts that are not wrong by themselves, if at all (`ask`). Other watchers are
        compared as this process knows them: the store looks again when the change is made (`beside`)."""
        self._look_alone(watcher, found, before)
        if any(each.problem == HALF for each in found.invalid):
            return None  # no server can be sent such a name
        with found.noted():
            self.beside(watcher)(self._fleet.index)
        found.drop_what_follows()
        if not ask:
            return None
        now: str | None = None

        async def source() -> None:
            nonlocal now
            now = await self._dependencies.mongo.check_source(watcher)

        looks: list[Coroutine[Any, Any, None]] = []
        if found.clean("source"):
            looks.append(source())
        if found.clean("checkpoint") and (before is None or watcher.checkpoint != before.checkpoint):
            looks.append(self._dependencies.mongo.checkpoints(watcher).check())
        if found.clean("source.database", "source.collection", "sink"):  # the source's names are in the subjects
            looks.append(self._dependencies.nats.check_sink(watcher))
        for ended in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(ended, ChangewireError):
                found.add(ended)
            elif ended is not None:
                raise ended
        return now

    def _look_alone(self, watcher: Watcher, found: Refusals, before: Watcher | None) -> None:
        found.add_problems(self.rules.problems(watcher))
        if before is None or before.sink.stream != watcher.sink.stream:
            found.add_problems(problems_when_added(watcher))
        if before is None or before.space != watcher.space:
            found.add_problems(self.rules.taken(watcher))

    def together(self, watchers: Sequence[Watcher]) -> list[Refusals]:
        """Return of each of a list why it cannot be beside those that come before it there."""
        index, first, found = OverlapIndex(), dict[str, int](), list[Refusals]()
        for number, watcher in enumerate(watchers):
            refusals = Refusals()
            if watcher.name in first:
                refusals.invalid.append(Problem("name", f"is also the name of [{first[watcher.name]}]"))
            first.setdefault(watcher.name, number)
            with refusals.noted():
                refuse_overlap(watcher, _Beside(index, lambda _: True))
            index.put(StoredWatcher(watcher, added=number))
            found.append(refusals)
        return found

    def beside(self, *watchers: Watcher) -> Check:
        """A look at everything stored, at the moment of a change. A watcher that is refused itself does not count."""

        def counts(other: StoredWatcher) -> bool:
            return other.name not in self._fleet or not self._fleet[other.name].refused

        def check(stored: OverlapIndex) -> None:
            for watcher in watchers:
                refuse_overlap(watcher, _Beside(stored, counts))

        return check


@dataclass(frozen=True, slots=True)
class _Beside:
    """`Others`: the watchers of an index that count."""

    index: OverlapIndex
    counts: Callable[[StoredWatcher], bool]

    def near(self, watcher: Watcher) -> Sequence[Watcher]:
        return [other.watcher for other in self.index.near(watcher) if self.counts(other)]
