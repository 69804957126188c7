"""Events about snapshots."""

from typing import Final

from app.config.log_events.event import Event

SNAPSHOTS: Final = {
    "snapshot_begun": Event("A snapshot reads its first documents; `documents` is an estimate."),
    "snapshot_done": Event("A snapshot is complete: each document is on the stream."),
    "snapshot_ended": Event(
        "A snapshot was cancelled or has failed (`state`), and nobody had asked for that. The rows that were published "
        "stay.",
        "Begin another one: POST /watchers/NAME/snapshot.",
    ),
    "snapshot_not_ended": Event(
        "The watcher was moved or changed, and its snapshot could not be ended. The next start of the watcher ends it.",
        "Nothing, unless `reason` lasts.",
    ),
    "snapshot_delayed": Event(
        "A snapshot cannot read now, and tries again every second. A new reason is logged.",
        "Nothing while it passes. If it lasts, correct what `reason` names, or cancel the snapshot.",
    ),
    "snapshot_lost_its_end": Event(
        "The NATS server has lost the end of a complete snapshot, which it had acknowledged. It is published again.",
        "As with `stream_lost_its_end`: find out why the server lost it.",
    ),
    "snapshot_overtaken": Event(
        "Another instance had published changes between the rows of a chunk. The chunk ends there, and the rest is "
        "read again as of a later time."
    ),
    "snapshot_chunk_ended": Event(
        "After an interruption MongoDB no longer had the time as of which a chunk was read. It ends with its last "
        "row on the stream, and the rest is read as of a later time."
    ),
    "snapshot_collection_moved": Event("A collection was renamed or dropped while a snapshot read it."),
    "snapshot_collections_appeared": Event("Collections came while a snapshot ran, and are read too."),
    "snapshot_ended_elsewhere": Event("The snapshot was ended through another instance while this one read."),
    "snapshot_not_stored": Event("How far a snapshot is cannot be stored now; it is tried again."),
    "snapshots_not_looked_up": Event("The snapshots cannot be looked up now; the status shows what was known."),
}
