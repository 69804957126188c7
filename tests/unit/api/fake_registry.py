"""A registry that only remembers: what the HTTP interface is tried over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from app.control.admission import Rules
from app.control.registry import Addition, Revisions
from app.domain.errors import Conflict, FieldProblem, Invalid, NotFound
from app.domain.instances import InstanceView
from app.domain.lifecycle import Desired, State
from app.domain.status import Component, Health, Lag, Status, TokenView, WatcherView
from app.domain.suggestions import Suggested, Suggestions
from app.domain.watcher import Start, StoredWatcher, Watcher, problems

TOKEN = "826502E9A9000000012B022C0100296E5A1004"


class FakeSuggestions:
    """What exists, for every client."""

    async def of(self, database: str | None) -> Suggestions:
        collections = Suggested(("orders",)) if database == "shop" else Suggested(why="no database is named")
        return Suggestions(Suggested(("shop",)), collections, Suggested(why="NATS cannot be reached"))


class FakeRegistry:
    """A registry that only remembers. `failure` is raised by every call, while it is set."""

    def __init__(self) -> None:
        self.rules, self.suggestions = Rules("changewire"), FakeSuggestions()
        self.views: dict[str, WatcherView] = {}
        self.elsewhere: set[str] = set()
        """Those that another instance owns, or none."""
        self.outdated: set[str] = set()
        """Those that another instance has removed, which is not known here yet."""
        self.moves: list[tuple[str, Start | None]] = []
        self.removed: list[tuple[str, bool]] = []
        self.explicit: list[bool] = []
        self.expected: list[Revisions | None] = []
        self.failure: Exception | None = None
        self.not_ready: str | None = None
        self.members: dict[str, InstanceView] = {}
        self.components = {
            "mongo": Component(True), "nats": Component(True), "watchers": Component(True, counts={"RUNNING": 2}),
        }  # fmt: skip

    def _view(self, name: str) -> WatcherView:
        if self.failure is not None:
            raise self.failure
        if name not in self.views:
            raise NotFound(f"there is no watcher {name}")
        return self.views[name]

    def show(self, watcher: Watcher, state: State, **more: Any) -> WatcherView:
        desired = Desired.PAUSED if state is State.PAUSED else Desired.RUNNING
        return WatcherView(StoredWatcher(watcher, desired=desired), Status(state, 1_700_000_000.5, **more))

    async def watchers(self, state: State | None = None) -> list[WatcherView]:
        own = [view for name, view in sorted(self.views.items()) if name not in self.elsewhere]
        return [view for view in own if state is None or view.status.state is state]

    async def watcher(self, name: str, *, afresh: bool = False) -> WatcherView:
        if afresh and name in self.outdated:
            del self.views[name]
        return self._view(name)

    async def add(
        self, watcher: Watcher, *, paused: bool = False, explicit_start: bool = False, dry_run: bool = False
    ) -> WatcherView:
        if self.failure is not None:
            raise self.failure
        found = problems(watcher, state_database="changewire")
        if found:
            raise Invalid(problems=tuple(found))
        if watcher.name in self.views:
            raise Conflict(f"there is a watcher {watcher.name} already")
        view = self.show(watcher, State.PAUSED if paused else State.STARTING)
        self.explicit.append(explicit_start)
        if not dry_run:
            self.views[watcher.name] = view
        return view

    async def add_all(self, additions: list[Addition], *, dry_run: bool = False) -> list[WatcherView]:
        before = dict(self.views)
        try:
            views = []
            for number, each in enumerate(additions):  # noqa: B007 - told by the error
                views.append(await self.add(each.watcher, paused=each.paused, explicit_start=each.explicit_start))
        except Invalid as error:
            self.views = before
            problems = tuple(FieldProblem(f"[{number}].{each.field}", each.problem) for each in error.problems)
            raise Invalid(problems=problems) from error
        except Exception:
            self.views = before
            raise
        if dry_run:
            self.views = before
        return views

    async def put(
        self,
        watcher: Watcher,
        *,
        paused: bool = False,
        explicit_start: bool = False,
        dry_run: bool = False,
        expected: Revisions | None = None,
    ) -> tuple[WatcherView, bool]:
        self.expected.append(expected)
        old = self.views.pop(watcher.name, None)
        view = await self.add(watcher, paused=paused, explicit_start=explicit_start, dry_run=dry_run)
        if dry_run and old is not None:
            self.views[watcher.name] = old
        return view, old is None

    async def remove(self, name: str, *, delete_checkpoint: bool = False, expected: Revisions | None = None) -> None:
        self.expected.append(expected)
        self._view(name)
        del self.views[name]
        self.removed.append((name, delete_checkpoint))

    async def pause(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        self.views[name] = self.show(self._view(name).stored.watcher, State.PAUSED)
        return self.views[name]

    async def resume(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        self.views[name] = self.show(self._view(name).stored.watcher, State.STARTING)
        return self.views[name]

    async def restart(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        return self._view(name)

    async def lag(self, name: str) -> Lag:
        self._view(name)
        return Lag(1.0, None, "not permitted", 1_700_000_000.25, 2.0)

    async def names(self) -> list[str]:
        return sorted(self.views)

    async def lags(self, names: Iterable[str] | None = None) -> dict[str, Lag]:
        own = [name for name in self.views if name not in self.elsewhere]
        return {name: await self.lag(name) for name in (own if names is None else names)}

    async def token(self, name: str) -> TokenView:
        self._view(name)
        return TokenView(TOKEN, 1_700_000_000, 7, 1, None)

    async def set_token(self, name: str, start: Start, *, expected: Revisions | None = None) -> TokenView:
        self._view(name)
        self.moves.append((name, start))
        return TokenView(None, None, None, 2, None)

    async def reset_token(self, name: str, *, expected: Revisions | None = None) -> TokenView:
        self._view(name)
        self.moves.append((name, None))
        return TokenView(None, None, None, 2, None)

    async def instances(self) -> list[InstanceView]:
        return list(self.members.values())

    async def drain_instance(self, name: str, *, on: bool, force: bool = False) -> InstanceView:
        if name not in self.members:
            raise NotFound(f"there is no instance {name}")
        if self.failure is not None and not force:
            raise self.failure
        view = self.members[name]
        self.members[name] = replace(view, member=replace(view.member, drained=on))
        return self.members[name]

    async def health(self) -> Health:
        return Health(self.components)

    def ready(self) -> str | None:
        return self.not_ready
