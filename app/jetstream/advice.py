"""Why a stream is not published to in the fastest mode, and what to do about it: for the status and the doctor.

Decided from values. Which mode it is says `streams.assess`.
"""

from dataclasses import dataclass

from app.domain.watcher import Watcher
from app.jetstream.streams import SWITCHES, Mode, Stream, is_exclusive

WAYS: dict[Mode, str] = {
    "fast_ingest": "by fast ingest: one batch stays open, and each message is fenced by the one before",
    "atomic": "in atomic batches",
    "window": "in a window of single messages, each fenced by the one before",
    "single": "one at a time, each message acknowledged before the next",
}
"""How changes are published."""
NAMES = {"allow_batched": "fast ingest", "allow_atomic": "atomic batches"}
_FLAGS = {"allow_batched": "--allow-fast", "allow_atomic": "--allow-batch"}
"""Of the program `nats`, in `nats stream edit`."""


_AFTER_CONNECTOR = (
    "Once you no longer need that program, set sink.stream_settings to changewire (for a watcher of connector.yaml: "
    "CHANGEWIRE_CONNECTOR_STREAMS=changewire)."
)


@dataclass(frozen=True, slots=True)
class Slower:
    """Why it is not faster (a part of a sentence), and what to do (sentences)."""

    mode: Mode
    why: str
    advice: str

    def __str__(self) -> str:
        return f"Changes are published {WAYS[self.mode]}, because {self.why}. The guarantee is the same. {self.advice}"


def why_slower(stream: Stream, watcher: Watcher, mode: Mode, *, refused: str | None = None) -> Slower | None:
    """Return why `mode` is not the fastest one; None where it is, as atomic batches are with several replicas.

    `refused` says why a setting could not be switched on, where that was tried."""
    exclusive = is_exclusive(stream, watcher.space)
    if mode == "fast_ingest" or (mode == "atomic" and exclusive and stream.replicas > 1):
        return None
    if mode == "atomic" and not exclusive:
        return Slower(
            mode,
            f"{_shared(stream)}: each batch is fenced by the watcher's subjects, and waits for the one before",
            "Give the watcher a stream of its own, if that is too slow.",
        )
    if mode == "single" and exclusive:
        return Slower(
            mode,
            f"another client has published to the watcher's subjects on {stream.name}, and a window is not safe then",
            "Let nobody else publish there, and restart the watcher.",
        )
    if exclusive and stream.takes_fast_ingest:
        return Slower(
            mode,
            "the watcher's subjects leave no room for fast ingest's longer commands (the server's max_control_line)",
            "Choose a shorter sink.subject, if that is too slow.",
        )
    setting = "allow_batched" if exclusive and stream.replicas == 1 else "allow_atomic"
    why, advice = _lacks(stream, watcher, setting, refused)
    if mode == "single":
        why = f"{_shared(stream)}, and {why}"
    return Slower(mode, why, advice)


def _shared(stream: Stream) -> str:
    subjects = ", ".join(stream.subjects)
    return f"the stream {stream.name} takes other messages too (its subjects are {subjects})"


def _lacks(stream: Stream, watcher: Watcher, setting: str, refused: str | None) -> tuple[str, str]:
    """Why a stream does not have a setting, and what to do."""
    name = stream.name
    by_hand = f"nats stream edit {name} {_FLAGS[setting]}"
    if watcher.sink.stream_settings == "connector":
        why = f"the stream {name} keeps mongodb-nats-connector's settings (sink.stream_settings), without {setting}"
        return why, _AFTER_CONNECTOR
    if stream.server_version < SWITCHES[setting]:
        needed = " and ".join(
            f"{NAMES[each]} from {SWITCHES[each][0]}.{SWITCHES[each][1]} on"
            for each in ("allow_batched", "allow_atomic")
            if stream.server_version < SWITCHES[each]
        )
        found = stream.version or "older than 2.11"
        return f"nats-server has {needed}, and this one is {found}", "Update nats-server, if that is too slow."
    if refused is None:
        return (
            f"{setting} is off in the stream {name}",
            f"Changewire switches it on when it opens the watcher, where the account may. By hand: {by_hand}",
        )
    advice = f"Let the account publish to $JS.API.STREAM.UPDATE.{name}, or use: {by_hand}. Then restart the watcher"
    return (
        f"{setting} could not be switched on in the stream {name} ({refused})",
        f"{advice}; a refusal is remembered for a minute.",
    )
