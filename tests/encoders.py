"""Both encoders, for tests that hold for either: the reference, and the native transcoder where it was built."""

from collections.abc import Callable, Collection, Sequence
from itertools import accumulate

import pytest

from app.domain.events import Change
from app.domain.packed import PackedChanges
from app.domain.raw_events import RawEvents
from app.formats import extended_json, native

OPERATIONS = ("insert", "update", "replace", "delete")

Encode = Callable[[bytes, str], Change]

ABSENCE = native.absence()
needs_native = pytest.mark.skipif(ABSENCE is not None, reason=f"the native transcoder is not there: {ABSENCE}")


def transcode(events: list[bytes], id_suffix: str = "") -> list[Change | None]:
    """What the native transcoder makes of the events; nothing of any where it is not there."""
    transcoder = native.transcoder("auto")
    return [None] * len(events) if transcoder is None else transcoder(events, id_suffix)


def through_native(raw: bytes, id_suffix: str) -> Change:
    """The change as the relay gets it: the native transcoder's, else the reference's."""
    (change,) = transcode([raw], id_suffix)
    return extended_json.encode(raw, id_suffix) if change is None else change


ENCODERS = [
    pytest.param(extended_json.encode, id="python"),
    pytest.param(through_native, id="native", marks=needs_native),
]


def raw_events(events: Sequence[bytes]) -> RawEvents:
    """The events in one piece, with something between them, as a reply has them."""
    ends = list(accumulate(len(event) + 3 for event in events))
    starts = [end - len(event) for end, event in zip(ends, events, strict=True)]
    return RawEvents(b"".join(b"---" + event for event in events), starts, ends)


def packed(
    events: Sequence[bytes],
    *,
    suffix: str = "",
    last: str = "",
    operations: Collection[str] = OPERATIONS,
    fits: tuple[int, int] = (1 << 20, 4096),
    pieces: Sequence[str] | None = None,
) -> PackedChanges | None:
    """What the native transcoder makes of a batch as a whole."""
    pack = native.packer("native")
    assert pack is not None
    return pack(raw_events(events), suffix, last, operations, fits, pieces)
