"""Events about one watcher: that it runs, why it does not, and where it goes on."""

from typing import Final

from app.config.log_events.event import REPORT, Event

WATCHERS: Final = {
    "watcher_opened": Event(
        "A watcher is RUNNING: it reads after `token` and publishes. `first` says that it never ran before, `gone` how "
        "many of its messages were removed from the stream before the position was stored."
    ),
    "watcher_stopped": Event(
        "A watcher was asked to stop, and has published and stored what it had read: it was paused, restarted, "
        "changed, removed or handed over to another instance, or the service stops."
    ),
    "drain_cut_short": Event(
        "A watcher was asked to stop, and did not finish what was in flight. Nothing is lost: the next start reads "
        "back from the stream what was stored.",
        "If it happens at each stop, look whether NATS acknowledges slowly, or raise CHANGEWIRE_DRAIN_SECONDS.",
    ),
    "watcher_retrying": Event(
        "A watcher is RETRYING: an error has interrupted it, and may pass. Logged when it begins, and again with a new "
        "reason, every half minute at most.",
        "Nothing while it passes by itself. If it lasts, `reason` names what to correct.",
    ),
    "watcher_failed": Event(
        "A watcher is FAILED: it does not try again. The server has said so twice, some seconds apart, or the watcher "
        "cannot run as it is defined.",
        "Correct what `reason` names, then restart the watcher (POST /watchers/NAME/restart).",
    ),
    "watcher_fenced": Event(
        "A watcher is FENCED: another writer publishes its changes and is faster. It stands by, and takes over when "
        "the other one falls silent.",
        "If no other instance runs the watcher, find the program that publishes to its subjects, and stop one of both.",
    ),
    "watcher_error": Event("An internal error has interrupted a watcher; it tries again.", REPORT),
    "watcher_task_ended": Event("The task of a watcher has ended though nobody stopped it.", REPORT),
    "checkpoint_delayed": Event(
        "The position cannot be written. Publishing continues, and nothing is lost: the stream says how far it got.",
        "Look at `reason`. A crash now makes the next start read more, and the oplog has to reach back so far.",
    ),
    "last_checkpoint_not_written": Event(
        "A watcher has stopped, and its last position is not stored.",
        "Nothing: the next start takes the position from the stream.",
    ),
    "oplog_headroom_low": Event(
        "MongoDB's oplog will soon no longer reach back to the watcher's position; changes would be lost then.",
        "Resume or repair the watcher, or make the oplog larger (replSetResizeOplog), before `seconds` are over.",
    ),
    "oplog_headroom_recovered": Event("The oplog reaches back far enough again."),
    "file_watcher_not_stored": Event(
        "A watcher of connector.yaml cannot be stored, so it does not run. It is tried again; a new reason is logged.",
        "Correct what `reason` names.",
    ),
    "watcher_left_file": Event("A watcher is no longer in connector.yaml, and was removed. Its stream is kept."),
    "start_not_taken_back": Event("What only the first start needs is still stored; the next round takes it back."),
    "move_not_announced": Event(
        "A watcher was moved, and the other instances could not be told. They notice the new epoch by themselves.",
        "Nothing, unless `reason` lasts.",
    ),
    "position_carried_over": Event(
        "A changed watcher goes on by its new route (stream, subject or selection of changes), from the position that "
        "the old one had reached; `before` is the old stream."
    ),
    "position_not_proved": Event(
        "A position that was taken from the stream is older than the oplog, so MongoDB cannot confirm it. Reading on "
        "from there fails too, and `on_history_lost` decides."
    ),
    "entries_found": Event("Where each entry of connector.yaml goes on that shares its stream with other entries."),
}
