"""What travels from the cursor to the stream: one change, encoded and named.

`formats/` encodes it, `pipeline/` publishes it.
"""

import json
from dataclasses import dataclass

from app.domain.dead_letters import Unpublishable


@dataclass(slots=True)
class Change:
    """One change on its way to the stream: a message, mostly without its subject.

    The only object made per event; not frozen, because that makes the making of one slower.
    """

    token: str
    """The resume token's `_data`: hexadecimal, compares in the order of the change stream."""
    operation: str
    """The event's `operationType`, such as `insert`."""
    body: bytes
    """The whole event as relaxed Extended JSON v2, UTF-8."""
    wall_time: float
    """When the server made the change, in seconds since 1970 (`wallTime`); 0.0 where the event does not say."""
    id: str
    """`Nats-Msg-Id`: the token, and from the second epoch on its suffix."""
    subject: str = ""
    """Where it goes, if that depends on its collection; empty: the operation tells."""
    headers: tuple[tuple[str, str], ...] = ()
    """`Changewire-*` headers, name and value; mostly none."""
    pointer: bytes | None = None
    """If the message would be too large for the server: the small body of the pointer that replaces it."""
    letter: Unpublishable | None = None
    """If it cannot be published: what goes to the dead letters instead."""


def namespace_of(body: bytes) -> str | None:
    """Return the collection in a stored message's event, such as `shop.orders`; None where it has none."""
    try:
        namespace = json.loads(body)["ns"]
        return f"{namespace['db']}.{namespace['coll']}"
    except (KeyError, TypeError, ValueError):  # a dropDatabase, an invalidate, or no change event at all
        return None
