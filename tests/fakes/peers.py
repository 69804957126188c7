"""Instances in one process: who owns what is a dictionary, and asking is a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.errors import InstanceSilent
from app.domain.peer_messages import Answer, Ask
from app.ports.peers import Handler


@dataclass
class Network:
    """All instances, and what each of them does where it is asked."""

    owners: dict[str, str] = field(default_factory=dict)
    """The instance that owns each watcher, by its name."""
    handlers: dict[str, Handler] = field(default_factory=dict)
    """Those of the instances that live."""
    silent: dict[str, InstanceSilent] = field(default_factory=dict)
    """The instances that do not answer, and what is raised."""
    frozen: set[str] = field(default_factory=set)
    """Those that hear, and never answer."""
    asked: list[tuple[str, Ask]] = field(default_factory=list)


class FakeOwners:
    """One instance's view of the network. `belief` is what it still believes about some watchers."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self._network = network
        self.belief: dict[str, str] = {}

    def owner(self, name: str) -> str | None:
        owner = self.belief.get(name) or self._network.owners.get(name)
        return None if owner == self.name else owner

    def others(self) -> Sequence[str]:
        return [name for name in self._network.handlers if name != self.name]


class FakePeers:
    """`ports.Peers` of one instance."""

    def __init__(self, name: str, network: Network) -> None:
        self._name = name
        self._network = network

    def start(self) -> None:
        """Nothing has to be waited for."""

    def serve(self, handler: Handler) -> None:
        self._network.handlers[self._name] = handler

    async def ask(self, instance: str, ask: Ask, *, seconds: float) -> Answer:
        self._network.asked.append((instance, ask))
        if instance in self._network.silent:
            raise self._network.silent[instance]
        handler = self._network.handlers.get(instance)
        if handler is None:
            raise InstanceSilent(f"the instance {instance} does not listen")
        try:
            async with asyncio.timeout(seconds):
                if instance in self._network.frozen:
                    await asyncio.Event().wait()
                return await handler(Ask.from_bytes(ask.to_bytes()))
        except TimeoutError:
            raise InstanceSilent(f"the instance {instance} did not answer within {seconds:g} s", begun=True) from None
        except Exception as error:
            raise InstanceSilent(f"the instance {instance} met an error", begun=True) from error

    async def close(self) -> None:
        self._network.handlers.pop(self._name, None)
