"""The other instances on the same state database: who owns which watcher, and how they are asked."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from app.domain.peer_messages import Answer, Ask

Handler = Callable[[Ask], Awaitable[Answer]]
"""Answers what another instance asks."""


class Circle(NamedTuple):
    """What instances on one state database share, stored there."""

    id: str
    """Part of the subjects, so that two state databases do not hear each other. Letters, digits, - and _."""
    key: bytes
    """Signs the messages; 32 random bytes. A secret."""


class Owners(Protocol):
    """Which instance owns which watcher, as this one knows it."""

    @property
    def name(self) -> str:
        """This instance's name."""
        ...

    def owner(self, name: str) -> str | None:
        """The other live instance that owns this watcher. None: this one does, or nobody, or there is none."""
        ...

    def others(self) -> Sequence[str]:
        """The names of the other live instances."""
        ...


class Peers(Protocol):
    """The way to the other instances."""

    def start(self) -> None:
        """Begin to listen once there is a handler, and return at once. It waits for NATS and for the state database by
        itself. Called where the event loop runs."""
        ...

    def serve(self, handler: Handler) -> None:
        """Say what answers the others. May be called from another thread."""
        ...

    async def ask(self, instance: str, ask: Ask, *, seconds: float) -> Answer:
        """Ask another instance, and return its answer. Raises InstanceSilent where there is none."""
        ...

    async def close(self) -> None:
        """Answer nothing more. May be called twice."""
        ...
