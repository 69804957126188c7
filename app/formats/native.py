"""The native transcoder (Rust, in `native/`), where it was built: a batch of events in one call, without the GIL.

It is optional. `extended_json.py` is the reference: a body made here equals the one made there. An event that is left
out here, as None, is encoded there, or refused with the reason. So the same events cannot be encoded with either.

A regular batch becomes one block (`pack`): no object is made for an event, and its frames are written natively too.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, overload

from app.domain.events import Change
from app.domain.packed import Numbered, PackedChanges
from app.domain.parts import Part, Split
from app.domain.raw_events import RawEvents
from app.domain.row_events import RowHead

if TYPE_CHECKING:
    from app._native import Block

Wish = Literal["auto", "native", "python"]
Transcode = Callable[[Sequence[bytes], str], list[Change | None]]
Pack = Callable[[RawEvents, str, str, Collection[str], tuple[int, int], Sequence[str] | None], PackedChanges | None]
PackRows = Callable[[RawEvents, RowHead, str, tuple[int, int], Sequence[str] | None], PackedChanges | None]


_NEEDED = ("transcode", "pack", "pack_rows", "split", "Subjects")
"""What the module has to have. Sources may be updated in place, and the module left as it was built before."""


def absence() -> str | None:
    """Why the native transcoder is unavailable; None if it is available."""
    try:
        from app import _native
    except ImportError as error:
        return f"it was not built, or not for this Python ({error})"
    lacking = [name for name in _NEEDED if not hasattr(_native, name)]
    if lacking:
        return f"it was built from an older version (it has no {' and no '.join(lacking)}); build it again: make setup"
    return None


def _is_used(wish: Wish) -> bool:
    if wish == "python":
        return False
    missing = absence()
    if missing is not None and wish == "native":
        raise ImportError(missing)
    return missing is None


def transcoder(wish: Wish) -> Transcode | None:
    """The native transcoder, if the settings ask for it or, with `auto`, if it is available.

    The function takes raw events and the suffix of their ids (like `extended_json.encode`). It returns, for each event
    in its place, the change, or None if it is left to `extended_json.encode`. It may be called in any thread, and
    raises at most MemoryError. Raises ImportError if the native one is required and unavailable.
    """
    if not _is_used(wish):
        return None
    from app import _native

    def transcode(events: Sequence[bytes], id_suffix: str) -> list[Change | None]:
        return _native.transcode(events, id_suffix, Change)

    return transcode


def packer(wish: Wish) -> Pack | None:
    """What makes a block of a regular batch; available as `transcoder`.

    The function takes the raw events, the suffix of their ids, the token that all of them have to be later than, the
    operations that are published, and the bytes of a body and of an id below which a message surely fits; where a
    subject depends on its change's names, also the pieces that it is completed from (`Template.pieces`). It returns the
    changes with these operations, or None if the batch is not regular: an event is left to the reference, a token does
    not grow, or a message might not fit. It may be called in any thread, and raises at most MemoryError."""
    if not _is_used(wish):
        return None
    from app import _native

    def pack(
        events: RawEvents,
        id_suffix: str,
        last: str,
        operations: Collection[str],
        fits: tuple[int, int],
        pieces: Sequence[str] | None,
    ) -> PackedChanges | None:
        bounds = (events.starts, events.ends)
        subjects = None if pieces is None else _native.Subjects(list(pieces))
        block = _native.pack(events.buffer, bounds, id_suffix, last, list(operations), fits, subjects)
        return None if block is None else NativeChanges(block, 0, len(block))

    return pack


def row_packer(wish: Wish) -> PackRows | None:
    """What makes a block of a snapshot's rows, out of what was read; available as `transcoder`.

    The function takes the documents, or what a pipeline made of them, what the rows have in common, the position that
    all of them have to be later than, and the rest as `packer`. It returns the rows that `row_events.of_rows` and then
    `packer` would make, or None as that. It may be called in any thread, and raises at most MemoryError."""
    if not _is_used(wish):
        return None
    from app import _native

    def pack_rows(
        documents: RawEvents, head: RowHead, last: str, fits: tuple[int, int], pieces: Sequence[str] | None
    ) -> PackedChanges | None:
        bounds, time = (documents.starts, documents.ends), (head.at.seconds, head.at.increment)
        subjects = None if pieces is None else _native.Subjects(list(pieces))
        block = _native.pack_rows(documents.buffer, bounds, head.before, time, head.names, last, fits, subjects)
        return None if block is None else NativeChanges(block, 0, len(block))

    return pack_rows


def splitter(wish: Wish) -> Split | None:
    """What takes a batch of events apart by collection; available as `transcoder`.

    It may be called in any thread. It returns None for a batch with anything unusual, which is left to the reference.
    """
    if not _is_used(wish):
        return None
    from app import _native

    def split(events: RawEvents) -> list[Part] | None:
        taken = _native.split(events.buffer, (events.starts, events.ends))
        if taken is None:
            return None
        return [
            Part(database, collection, RawEvents(buffer, starts, ends), first, last)
            for database, collection, buffer, starts, ends, first, last in taken
        ]

    return split


class NativeChanges(PackedChanges):
    """The changes of a block from one index to another."""

    __slots__ = ("_block", "_headers", "_start", "_stop")

    def __init__(self, block: "Block", start: int, stop: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._block = block
        self._start = start
        self._stop = stop
        self._headers = headers

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> PackedChanges: ...
    def __getitem__(self, index: int | slice) -> Change | PackedChanges:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("changes are taken in their order: a slice has no step")
            return NativeChanges(self._block, self._start + start, self._start + max(start, stop), self._headers)
        place = index + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError("there is no such change")
        return Change(*self._block.change(self._start + place), headers=self._headers)

    def __repr__(self) -> str:
        return f"NativeChanges({len(self)} changes, {self.size} bytes)"

    def with_headers(self, headers: tuple[tuple[str, str], ...]) -> "NativeChanges":
        return NativeChanges(self._block, self._start, self._stop, (*self._headers, *headers))

    @property
    def size(self) -> int:
        return self._block.size(self._start, self._stop)

    def fitting(self, size: int, beside: int) -> int:
        return self._block.fitting(self._start, self._stop, size, beside)

    def operations(self) -> Mapping[str, int]:
        counts = self._block.counts(self._start, self._stop)
        return {name: count for name, count in zip(self._block.operations, counts, strict=True) if count}

    def wall_times(self) -> Sequence[float]:
        return self._block.wall_times(self._start, self._stop)

    def frames(
        self, subjects: Mapping[str, str], reply: Numbered | None, lines: Numbered, size: int
    ) -> Iterator[bytes]:
        by_operation = [subjects[name] for name in self._block.operations]
        own = "".join(f"{name}: {value}\r\n" for name, value in self._headers)
        lines = lines._replace(prefix=own + lines.prefix)
        index = self._start
        while index < self._stop:
            places = (self._start, index, self._stop)
            chunk, count = self._block.frames(places, size, by_operation, reply, lines)
            yield chunk
            index += count
