"""Events about the two servers, the connections to them, and the change streams that watchers share."""

from typing import Final

from app.config.log_events.event import REPORT, Event

SERVERS: Final = {
    "server_unreachable": Event(
        "MongoDB or NATS (`component`) cannot be used. Logged when an outage begins, and again with a new reason, "
        "every half minute at most. The watchers go on by themselves after it.",
        "Correct what `reason` names. `changewire doctor` examines both servers.",
    ),
    "server_reachable": Event("The outage is over."),
    "probe_failed": Event("An internal error while a server was asked whether it answers.", REPORT),
    "connections_short": Event(
        "The change streams of this instance need more connections than MONGO_URI allows (maxPoolSize), which is "
        "overruled, or more than a process can have.",
        "`hint` says what to change: maxPoolSize, or how many change streams one instance has.",
    ),
    "nats_connected": Event("A NATS server is connected: at the start, or another one of the cluster."),
    "nats_disconnected": Event(
        "The connection to NATS was lost, and another one is made at once. `awaited` requests had no answer yet; what "
        "became of them is read back. If no server can be reached, `server_unreachable` follows."
    ),
    "nats_unreachable": Event("An attempt to connect to NATS has failed. Only with LOG_LEVEL=debug."),
    "nats_close_failed": Event("A lost connection could not be closed in an orderly way. Only with LOG_LEVEL=debug."),
    "nats_connection_trouble": Event("An internal error while connecting to NATS; it is tried again.", REPORT),
    "nats_permission_denied": Event(
        "The account may not subscribe to `subject`, so other instances cannot ask this one.",
        "Add the subject to the user's subscribe permissions.",
    ),
    "nats_limit_learnt": Event(
        "The server takes less than it announces, or more again: so many `bytes` of `limit`. Larger messages are "
        "handled as `sink.oversize` says.",
        "If the limit is too low, raise it for the account, and reconnect or restart Changewire.",
    ),
    "nats_limit_unknown": Event(
        "A limit of the server could not be found out, and is assumed to be low.",
        "Look at `reason`; often the account allows no more connections.",
    ),
    "feed_opened": Event("Watchers of a database (`feed`) read from one change stream from now on."),
    "feed_closed": Event("A shared change stream has ended; each watcher reads by its own, or joins another one."),
    "feed_not_opened": Event("A database cannot be watched as a whole. Its watchers read by their own change streams."),
    "feed_filtered": Event(
        "The shared change stream opens again with a filter, since most of what came belonged to no watcher. `only` "
        "counts the collections that pass, `without` those that do not."
    ),
    "feed_lets_go": Event(
        "A watcher would hold up the others, so it reads by its own change stream. `held` bytes waited for it."
    ),
    "feed_resumes": Event("The shared change stream was interrupted, and opens again at its position."),
    "feed_failed": Event(
        "The shared change stream has ended with an error. Its watchers retry, or read by their own change streams; "
        "what they meet is logged of each."
    ),
    "feed_task_ended": Event(
        "An internal error has ended a shared change stream. Its watchers read by their own.", REPORT
    ),
    "views_not_known": Event("It cannot be asked which collections are views. A new reason is logged."),
}
