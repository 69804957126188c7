"""What all instances know together: the lists of all watchers, put together from what each instance runs.

Every instance knows every watcher's definition, and the status of those that it runs. So a list has a part of its own
and a part of each other instance, asked for at the same time. Where an instance does not answer, its watchers are shown
as they were last heard of, with `as_of`.
"""

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.types import Scope

from app.api.auth import FORWARDED, caller_of
from app.api.parameters import Silence
from app.api.schemas.base import moment
from app.api.schemas.status import LagAnswer, StatusAnswer
from app.api.schemas.watchers import WatcherAnswer, WrittenWatchers
from app.control.health import in_parts
from app.control.registry import Registry
from app.domain.errors import InstanceSilent, NotFound
from app.domain.lifecycle import Desired, State
from app.domain.peer_messages import ASKED_HEADERS, Answer, Ask
from app.domain.status import Lag, Status, WatcherView
from app.ports.peers import Owners, Peers

READ_SECONDS = 2.0
"""How long another instance is waited for by a read."""

Heard = Mapping[str, Any]
"""One entry of a list, as another instance has answered it."""
Listed = WatcherAnswer | Heard | bytes
"""One entry of the list of watchers; as JSON where it is one of this instance's own."""


class Alone:
    """The owners of a service whose watchers no other instance runs."""

    name = ""

    def owner(self, _name: str) -> str | None:
        return None

    def others(self) -> Sequence[str]:
        return ()


class Others:
    """The other instances, as the lists need them."""

    def __init__(self, owners: Owners, peers: Peers | None, clock: Callable[[], float] = time.time) -> None:
        """Without `peers` no other instance can be asked."""
        self._owners = owners
        self._peers = peers
        self._clock = clock
        self._remembered: dict[str, tuple[float, Heard]] = {}
        """When the status of a watcher that runs elsewhere was last heard of, and the status."""
        self._written = WrittenWatchers()

    # Lists

    async def watchers(self, registry: Registry, state: State | None, scope: Scope) -> Iterable[Listed]:
        """Return all watchers by name, or those in one state. For another instance: those that run here."""
        own = {view.stored.name: view for view in await registry.watchers()}
        self._written.forget_all_but(own)
        if FORWARDED in scope:
            return map(self._written.write, own.values())
        parts: Mapping[str, Any] = {}
        if self._owners.others():
            parts = await self._ask_all("/watchers", scope, _are_watchers)
        heard, rest = _by_name(parts), dict[str, WatcherAnswer]()

        async def look(name: str) -> None:
            answer = await self._unanswered(registry, name, parts)
            if answer is not None:
                rest[name] = answer

        await in_parts([name for name in await registry.names() if name not in own and name not in heard], look)
        self._remember_all(heard, own.keys() | heard.keys() | rest.keys())
        return self._merged(own, heard, rest, state)

    async def _unanswered(self, registry: Registry, name: str, parts: Container[object]) -> WatcherAnswer | None:
        """Return a watcher that no instance has listed; None where it is not there any more."""
        owner = self._owners.owner(name)
        try:
            # Where its instance would have listed it, or it has none: it may have been removed a moment ago.
            view = await registry.watcher(name, afresh=owner is None or owner in parts)
        except NotFound:
            return None
        if owner is None:
            return WatcherAnswer.of(view)
        reason = f"{name} is moving between instances" if owner in parts else f"the instance {owner} did not answer"
        return self.unheard(view, Silence(owner, reason))

    def _merged(
        self,
        own: Mapping[str, WatcherView],
        heard: Mapping[str, Heard],
        rest: Mapping[str, WatcherAnswer],
        state: State | None,
    ) -> Iterator[Listed]:
        for name in sorted(own.keys() | heard.keys() | rest.keys()):
            if name in own:
                if state in (None, own[name].status.state):
                    yield self._written.write(own[name])
            elif name in heard:
                if state in (None, heard[name]["status"]["state"]):
                    yield heard[name]
            elif state in (None, rest[name].status.state):
                yield rest[name]

    async def lags(self, registry: Registry, scope: Scope) -> dict[str, LagAnswer]:
        """Return how far each watcher is behind, by name. For another instance: those that run here."""
        if FORWARDED in scope:
            return {name: LagAnswer.of(lag) for name, lag in (await registry.lags()).items()}
        asking = asyncio.create_task(self._ask_all("/lag", scope, _are_lags), name="ask:all")
        try:
            mine = await registry.lags()
            found: dict[str, Any] = dict(entry for part in (await asking).values() for entry in part.items())
        finally:
            asking.cancel()
            await asyncio.wait([asking])
        found |= {name: LagAnswer.of(lag) for name, lag in mine.items()}
        rest = await registry.lags(name for name in await registry.names() if name not in found)
        for name, lag in rest.items():
            found[name] = LagAnswer.of(lag) if self._owners.owner(name) is None else self.unheard_lag(lag)
        return {name: found[name] for name in sorted(found)}

    async def _ask_all(self, path: str, scope: Scope, fits: Callable[[Any], bool]) -> dict[str, Any]:
        """Ask each other instance for its part; without those that do not answer, or with what does not fit."""
        found: dict[str, Any] = {}
        ask = self.ask_of(scope, path=path)

        async def look(instance: str) -> None:
            try:
                answer = await self.ask(instance, ask, seconds=READ_SECONDS)
                part = orjson.loads(answer.body)
            except (InstanceSilent, orjson.JSONDecodeError):
                return  # its watchers are shown as they were last heard of
            if answer.status == 200 and fits(part):
                found[instance] = part

        await asyncio.gather(*(look(instance) for instance in self._owners.others()))
        return found

    # One instance

    def ask_of(self, scope: Scope, body: bytes = b"", *, path: str | None = None) -> Ask:
        """Return a request as another instance is asked. With `path`: another one, without query and headers."""
        caller, client = caller_of(scope), scope.get("client")
        return Ask(
            method=scope["method"],
            path=scope["path"] if path is None else path,
            query=scope["query_string"].decode("latin-1") if path is None else "",
            headers=asked_headers(scope) if path is None else (),
            body=body,
            caller=caller.name,
            role=caller.role,
            remote=client[0] if client else None,
            through=self._owners.name,
        )

    async def ask(self, instance: str, ask: Ask, *, seconds: float) -> Answer:
        """Raises InstanceSilent."""
        if self._peers is None:
            raise InstanceSilent(f"the instance {instance} cannot be asked from here")
        return await self._peers.ask(instance, ask, seconds=seconds)

    # What was last heard

    def remember(self, name: str, status: Heard) -> None:
        """Keep the status of a watcher that runs elsewhere."""
        self._remembered[name] = self._clock(), status

    def _remember_all(self, heard: Mapping[str, Heard], known: Set[str]) -> None:
        for name in self._remembered.keys() - known:
            del self._remembered[name]
        for name, entry in heard.items():
            self.remember(name, entry["status"])

    def unheard(self, view: WatcherView, silence: Silence) -> WatcherAnswer:
        """Return a watcher whose instance does not answer: as it was last heard of, or else as it is stored."""
        return WatcherAnswer.of(view, self._recalled(view, silence) or StatusAnswer.of(self._stored(view, silence)))

    def unheard_lag(self, lag: Lag) -> LagAnswer:
        """Return how far a watcher is behind whose instance does not answer: what its stored position tells."""
        return LagAnswer.of(lag, self._clock() - (lag.checkpoint_age_seconds or 0.0))

    def _recalled(self, view: WatcherView, silence: Silence) -> StatusAnswer | None:
        when, status = self._remembered.get(view.stored.name, (0.0, None))
        if status is None:
            return None
        try:
            answer = StatusAnswer.model_validate(status)
        except ValidationError:  # of an instance of another version
            return None
        answer.as_of, answer.instance = moment(when), silence.instance
        answer.notes = [*answer.notes, silence.reason]
        return answer

    def _stored(self, view: WatcherView, silence: Silence) -> Status:
        paused = view.stored.desired is Desired.PAUSED
        now = self._clock()
        return Status(
            State.PAUSED if paused else State.STARTING,
            now,
            reason=f"its state is not known: {silence.reason}",
            instance=silence.instance,
            as_of=now,
        )


def _by_name(parts: Mapping[str, Any]) -> dict[str, Heard]:
    """Return the entries of all parts by name; where two have one, that of the instance that runs the watcher."""
    found: dict[str, Heard] = {}
    for instance, entries in parts.items():
        for entry in entries:
            if entry["name"] not in found or entry["status"]["instance"] == instance:
                found[entry["name"]] = entry
    return found


def _are_watchers(part: Any) -> bool:
    return isinstance(part, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("status"), dict)
        and {"state", "instance"} <= entry["status"].keys()
        for entry in part
    )


def _are_lags(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(lag, dict) for lag in part.values())


def asked_headers(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Return the headers of a request that another instance needs."""
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name.decode("latin-1") in ASKED_HEADERS
    )


async def _others(request: Request) -> Others:
    others: Others = request.app.state.others
    return others


CurrentOthers = Annotated[Others, Depends(_others)]
