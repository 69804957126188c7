"""A change stream's events taken apart by collection, for those who each want one collection's.

Values only. `formats/native.py` takes a reply apart in one call; `mongodb/feeds/parts.py` is the reference.
"""

from collections.abc import Callable
from typing import NamedTuple

from app.domain.raw_events import RawEvents


class Part(NamedTuple):
    """Events of one collection, in their order. What other collections did in between is in other parts.

    An event that concerns more than one collection, or none (a rename, a dropDatabase, an invalidate), is a part of its
    own, with empty names: who takes it has to look into it. No part goes beyond it on either side."""

    database: str
    collection: str
    events: RawEvents
    first: str
    """The token of the first event."""
    last: str
    """The token of the last event."""


Split = Callable[[RawEvents], list[Part] | None]
"""Takes events apart; None where it leaves that to the reference."""
