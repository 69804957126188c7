"""Changes in one piece: a batch of which most changes never become objects.

What is done with a batch as a whole (its size, its operations, its frames) is asked of the piece. Who needs a single
change asks for it by its index, as of a list. `formats/native.py` makes the pieces; a list of `Change` does everywhere
that a piece does, and the functions here ask either.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from app.domain.events import Change


class Numbered(NamedTuple):
    """A text with a number in it that grows by one from message to message: prefix, first number, suffix."""

    prefix: str
    first: int
    suffix: str

    def at(self, index: int) -> str:
        """The text of the message with this index."""
        return f"{self.prefix}{self.first + index}{self.suffix}"


class PackedChanges(Sequence[Change]):
    """Plain changes: none has a pointer or a letter, and all have the same headers. A slice copies nothing."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The bytes of all bodies and ids."""

    @overload
    @abstractmethod
    def __getitem__(self, index: int) -> Change: ...
    @overload
    @abstractmethod
    def __getitem__(self, index: slice) -> "PackedChanges": ...

    @abstractmethod
    def with_headers(self, headers: tuple[tuple[str, str], ...]) -> "PackedChanges":
        """Return the same changes, each with these headers too: few and short ones, without a line break."""

    @abstractmethod
    def fitting(self, size: int, beside: int) -> int:
        """How many changes from the front have at most `size` bytes, with `beside` added for each; at least one."""

    @abstractmethod
    def operations(self) -> Mapping[str, int]:
        """How many changes each operation has, of those that are there."""

    @abstractmethod
    def wall_times(self) -> Sequence[float]:
        """When the server made the changes, in seconds since 1970, earliest first; 0.0 where an event does not say."""

    @abstractmethod
    def frames(
        self, subjects: Mapping[str, str], reply: Numbered | None, lines: Numbered, size: int
    ) -> Iterator[bytes]:
        """Yield the frames of all changes in chunks of about `size` bytes: what `jetstream/frames.numbered` makes.

        `subjects` are those of the operations; a change that has its own goes there."""


def size_of(changes: Sequence[Change]) -> int:
    """Return the bytes of all bodies and ids."""
    if isinstance(changes, PackedChanges):
        return changes.size
    return sum(len(change.body) + len(change.id) for change in changes)


def operations_of(changes: Sequence[Change]) -> Mapping[str, int]:
    """Return how many changes each operation has."""
    if isinstance(changes, PackedChanges):
        return changes.operations()
    return Counter([change.operation for change in changes])


def wall_times_of(changes: Sequence[Change]) -> Sequence[float]:
    """Return when the server made the changes, earliest first."""
    if isinstance(changes, PackedChanges):
        return changes.wall_times()
    return sorted([change.wall_time for change in changes])  # nearly sorted as they come, so nearly free


def are_plain(changes: Sequence[Change]) -> bool:
    """Whether each of them is a message as it is: no dead letter, and none whose body goes to the object store."""
    if isinstance(changes, PackedChanges):
        return True
    return all(change.letter is None and change.pointer is None for change in changes)


def front(changes: Sequence[Change], count: int, size: int, beside: int) -> Sequence[Change]:
    """Return as many from the front as go out together: one at least, up to the next dead letter.

    At most `count`, and about `size` bytes, with `beside` added for each."""
    changes = changes[:count]
    if isinstance(changes, PackedChanges):
        return changes[: changes.fitting(size, beside)]
    together = taken = 0
    for change in changes:
        if change.letter is not None:
            break
        together += len(change.body if change.pointer is None else change.pointer) + len(change.id) + beside
        if taken and together > size:
            break
        taken += 1
    return changes[:taken]
