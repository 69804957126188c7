"""What is published and awaited together: an exchange gets the replies, and decides when it has its outcome."""

import asyncio
from collections.abc import Collection
from typing import Generic, TypeVar

NO_RESPONDERS = b"NATS/1.0 503"

T = TypeVar("T")


class Exchange(Generic[T]):
    """Something published and what is awaited for it; `outcome` is set by the replies or by the connection's end.

    `subjects` are those that it publishes to: it fails where the server refuses one of them."""

    def __init__(self, subjects: Collection[str]) -> None:
        self.subjects = subjects
        self.outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def heard(self, rest: bytes, data: bytes, headers: bytes | None) -> None:
        """Take a reply that came to the reply subject, a dot and `rest`: mostly an index."""
        self.received(int(rest), data, headers)

    def received(self, index: int, data: bytes, headers: bytes | None) -> None:
        """Take a reply that came to `reply prefix` + `index`."""
        raise NotImplementedError

    def resolve(self, value: T) -> None:
        if not self.outcome.done():
            self.outcome.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # read once, so that asyncio does not log an exception that was never retrieved


class Answer(Exchange[bytes | None]):
    """One reply: its data, or None where nobody listens to the subject."""

    def received(self, index: int, data: bytes, headers: bytes | None) -> None:  # noqa: ARG002
        self.resolve(None if headers is not None and headers.startswith(NO_RESPONDERS) else data)
