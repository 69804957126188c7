"""A batch of raw events in one piece of bytes, each found by its bounds.

What a server's reply brings stays as it came. An event becomes bytes of its own only when somebody asks for it: the
native transcoder never does.
"""

from collections.abc import Sequence
from typing import overload


class RawEvents(Sequence[bytes]):
    """Events as a sequence of raw BSON, cut out of `buffer` on demand.

    `starts` and `ends` are the offsets of each event in the buffer, in its order. Equal to any sequence of the same
    events."""

    __slots__ = ("buffer", "ends", "size", "starts")

    def __init__(self, buffer: bytes, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.buffer = buffer
        self.starts = starts
        self.ends = ends
        self.size = sum(ends) - sum(starts)
        """The bytes of all events together."""

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "RawEvents": ...
    def __getitem__(self, index: int | slice) -> "bytes | RawEvents":
        if isinstance(index, slice):
            return RawEvents(self.buffer, self.starts[index], self.ends[index])
        return self.buffer[self.starts[index] : self.ends[index]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as for a list

    def __repr__(self) -> str:
        return f"RawEvents({len(self)} events, {self.size} bytes)"


def size_of(events: Sequence[bytes]) -> int:
    """Return the bytes of all events together."""
    return events.size if isinstance(events, RawEvents) else sum(map(len, events))
