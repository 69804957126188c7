"""A stream's commands stay on the mongos that holds its cursor.

The commands here are our own, so the driver does not bind them to a server as it binds its own cursors. Each stream has
a `Pin`; the context variable carries it into the driver's choice of a server. Replica sets need none, since only the
primary is read.
"""

import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar

from pymongo.server_description import ServerDescription


class Pin:
    """The one mongos that a stream's cursor lives on, chosen by its first command."""

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address: tuple[str, int | None] | None = None


_pinned: ContextVar[Pin | None] = ContextVar("pin", default=None)


@contextlib.contextmanager
def pinned(pin: Pin) -> Iterator[None]:
    """Send the commands that begin in here where the pin says. Motor copies the context when a command begins."""
    before = _pinned.set(pin)
    try:
        yield
    finally:
        _pinned.reset(before)


def prefer_pinned(candidates: list[ServerDescription]) -> list[ServerDescription]:
    """Choose the pinned mongos among several (the client's `server_selector`).

    A mongos that is gone is not insisted on: another one answers "cursor not found", and the stream is opened there.
    """
    pin = _pinned.get()
    if pin is None or len(candidates) < 2 or candidates[0].server_type_name != "Mongos":
        return candidates
    if pin.address is None:
        pin.address = random.choice(candidates).address
    return [candidate for candidate in candidates if candidate.address == pin.address] or candidates
