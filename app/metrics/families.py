"""Every metric that Changewire has, with its help text and its labels. A new one is a line here.

What it counts is told by a method of `ports.Observer`, and counted in `observer.py`. A family whose first label is
`watcher` loses a watcher's series when the watcher goes, one whose last label is `subject` those of its subjects.
"""

from collections.abc import Collection, Iterator

from app.metrics.kinds import DELAY_BUCKETS, SIZE_BUCKETS, CounterFamily, Family, GaugeFamily, HistogramFamily

_BY_COMMAND = ("database", "command")
_BY_SUBJECT = ("subject",)


class Families:
    """All families with their series. The observer changes and reads them under its lock."""

    def __init__(self) -> None:
        # As mongodb-nats-connector names them.
        self.messages_published = CounterFamily(
            "nats_messages_published_total", "Messages acknowledged by the stream.", _BY_SUBJECT
        )
        self.messages_failed = CounterFamily(
            "nats_messages_failed_total", "Messages whose publish failed.", _BY_SUBJECT
        )
        self.message_duration = HistogramFamily(
            "nats_message_duration_seconds",
            "From publishing a message to its acknowledgement, in seconds.",
            _BY_SUBJECT,
        )
        self.processing_duration = HistogramFamily(
            "connector_change_event_processing_duration_seconds",
            "From reading a change to its acknowledgement, in seconds.",
            ("collection", "subject"),
        )
        self.commands_started = CounterFamily(
            "mongodb_commands_started_total", "Commands sent to MongoDB.", _BY_COMMAND
        )
        self.commands_succeeded = CounterFamily(
            "mongodb_commands_succeeded_total", "MongoDB commands that succeeded.", _BY_COMMAND
        )
        self.commands_failed = CounterFamily(
            "mongodb_commands_failed_total", "MongoDB commands that failed.", _BY_COMMAND
        )
        self.command_duration = HistogramFamily(
            "mongodb_command_duration_seconds", "Duration of MongoDB commands in seconds.", _BY_COMMAND
        )

        # Changewire's own.
        self.lag = GaugeFamily(
            "changewire_watcher_lag_seconds", "Seconds between the server's operation time and the watcher's position."
        )
        self.oplog_headroom = GaugeFamily(
            "changewire_watcher_oplog_headroom_seconds",
            "Seconds of oplog before the watcher's position; 0: history is lost.",
        )
        self.history_at_risk = GaugeFamily(
            "changewire_watcher_history_at_risk",
            "1 where a full oplog has fewer than CHANGEWIRE_MIN_HEADROOM_SECONDS left before the watcher's position.",
        )
        self.overdue = GaugeFamily(
            "changewire_watcher_overdue",
            "1 where changes have waited for 15 seconds and nothing was published, whatever the watcher's state.",
        )
        self.dead_letters = GaugeFamily("changewire_watcher_dead_letters", "Changes set aside as dead letters.")
        self.restarts = CounterFamily(
            "changewire_watcher_restarts_total", "How often a watcher was opened again, and why.", ("watcher", "reason")
        )
        self.events = CounterFamily(
            "changewire_events_total", "Changes published and acknowledged.", ("watcher", "operation")
        )
        self.events_skipped = CounterFamily(
            "changewire_events_skipped_total", "Changes read and not published, and why.", ("watcher", "reason")
        )
        self.batch_events = HistogramFamily(
            "changewire_batch_events", "Changes in a published batch.", ("watcher",), SIZE_BUCKETS
        )
        self.event_delay = HistogramFamily(
            "changewire_event_delay_seconds",
            "From the change in MongoDB (wallTime) to its acknowledgement, in seconds.",
            ("watcher",),
            DELAY_BUCKETS,
        )
        self.state = GaugeFamily(
            "changewire_watcher_state", "1 for the watcher's state, 0 for the others.", ("watcher", "state")
        )
        self.checkpoint_age = GaugeFamily(
            "changewire_watcher_checkpoint_age_seconds", "Seconds since the last checkpoint."
        )
        self.snapshot_documents = CounterFamily(
            "changewire_snapshot_documents_total", "Documents of snapshots published and acknowledged.", ("watcher",)
        )
        self.snapshot_running = GaugeFamily(
            "changewire_snapshot_running",
            "1 while a snapshot of the watcher is running, also where it waits; 0 when it has ended.",
        )
        self.change_streams = GaugeFamily(
            "changewire_change_streams",
            "Change streams that this process has open: `shared` by watchers of a database, or a watcher's `own`.",
            ("kind",),
        )
        self.feed_members = GaugeFamily(
            "changewire_feed_members", "Watchers that read from a shared change stream.", ("database",)
        )
        self.instance_watchers = GaugeFamily(
            "changewire_instance_watchers",
            "Watchers that this instance owns, paused and failed ones too.",
            ("instance",),
        )
        self.instances = GaugeFamily(
            "changewire_instances",
            "Instances that share the watchers, as this one sees them: `live`, or `gone` for less than an hour.",
            ("state",),
        )
        self.without_instance = GaugeFamily(
            "changewire_watchers_without_instance", "Watchers that no live instance has owned for 15 seconds.", ()
        )
        self.build_info = GaugeFamily("changewire_build_info", "The version that runs; always 1.", ("version",))

    def __iter__(self) -> Iterator[Family]:
        """Every family, in the order of their declaration."""
        return iter(vars(self).values())

    def forget(self, watcher: str, subjects: Collection[str]) -> None:
        """Remove every series of a watcher, and of the subjects that nobody publishes to any more."""
        for family in self:
            if family.labels[:1] == ("watcher",):
                family.drop(0, (watcher,))
            elif family.labels[-1:] == ("subject",):
                family.drop(-1, subjects)
