"""Events about the process as a whole."""

from typing import Final

from app.config.log_events.event import REPORT, Event

SERVICE: Final = {
    "encoder": Event("Which encoder makes the messages: `native`, or `python`, which is slower, and why."),
    "tracing_started": Event(
        "Spans go to a collector by OpenTelemetry; with `messages` each message names its batch's."
    ),
    "settings": Event("A setting looks like a mistake; the service starts with it.", "Correct what `problem` says."),
    "reads_open": Event(
        "The service is reachable from other machines, and reads need no token.",
        "Set CHANGEWIRE_READS_NEED_TOKEN=true, or listen on 127.0.0.1 only.",
    ),
    "certificate": Event(
        "A certificate of the service expires soon, or has expired. Looked at daily.", "Replace the certificate."
    ),
    "listening": Event("The service answers over HTTP."),
    "stopping": Event("A signal asks the service to stop. The watchers publish what they have read."),
    "stopped": Event("The service has stopped; nothing was left in flight."),
    "change_outlived_request": Event("A change went on after its request was cut off, and has ended with `outcome`."),
    "request_failed": Event("A request ended in an internal error; the answer (500) names the `id`.", REPORT),
    "service_task_ended": Event(
        "A task that every watcher needs has ended. The service no longer does its work.",
        f"Restart the service now. {REPORT}",
    ),
    "audit": Event(
        "A request asked for a change, or was refused (warning). See [the audit log](#the-audit-log).",
        "Refusals that go on: a client has a wrong token, or somebody guesses. `remote` and `who` say which.",
    ),
    "library_message": Event(
        "A library has written a line: `message` is its text, `logger` names it.",
        "If it repeats and something does not work, report it; otherwise ignore it.",
    ),
}
