"""Events about what is on a stream, and what is not."""

from typing import Final

from app.config.log_events.event import Event

STREAMS: Final = {
    "stream_created": Event("A stream did not exist, and was created for a watcher."),
    "dead_letter_stream_created": Event("The stream of a watcher's dead letters was created, for the first one."),
    "stream_not_updated": Event(
        "A stream lacks what a faster publish mode needs (`wanted`), and it could not be switched on. The watcher "
        "uses a slower mode.",
        "Allow the account to update the stream, or switch it on with `changewire streams switch`.",
    ),
    "stream_moved": Event(
        "A stream has another creation time, and the watcher's last message is in its place: it was restored or moved.",
        "Nothing, if somebody did that on purpose.",
    ),
    "stream_lost_its_end": Event(
        "The NATS server has lost messages that it had acknowledged. They are published again.",
        "Find out why: a disk or power failure, too few replicas. Consumers that had these changes get them again.",
    ),
    "gap_marked": Event(
        "Changes are missing for good between `after` and `until`; a message with the header Changewire-Gap marks the "
        "place.",
        "Tell the consumers, or take a snapshot. Find out why the watcher was down for longer than the oplog reaches.",
    ),
    "foreign_messages": Event(
        "Another client publishes to the watcher's subjects.",
        "Stop it, or give the watcher a subject of its own: consumers cannot tell these messages from changes.",
    ),
    "count_given_up": Event(
        "Messages were removed from the stream before the position was stored, and the changes that were counted for "
        "them did not all come. The watcher goes on without the count.",
        "Compare stream and collection with `changewire verify NAME`.",
    ),
    "read_back": Event(
        "What became of a batch was not known (`reason`), so the stream was asked: `there` changes of it are stored, "
        "and `rest` are published again."
    ),
    "batch_refused": Event(
        "The stream or the server refused a batch as a whole (it is full, or takes small ones only). The next one has "
        "`next` messages."
    ),
    "dead_letter": Event(
        "A change cannot be published, and was set aside. `new` is false if it had been before.",
        "Look at it on the page, or GET /watchers/NAME/dead-letters. Replay it after the repair, or delete it.",
    ),
    "object_left_behind": Event(
        "A dead letter is removed, and its event is still in the object store.",
        "Delete `object`, or leave it: it only takes space.",
    ),
    "event_reduced": Event(
        "An event is larger than MongoDB can send. It is published without the fields in `without`.",
        "MongoDB 6.0.9 or later sends it whole. Consumers read the header Changewire-Reduced and look the document up.",
    ),
    "trial_stream_left_behind": Event(
        "A stream was created to try whether the definition is accepted, and could not be removed.",
        "Delete the stream that `stream` names; it is empty.",
    ),
}
