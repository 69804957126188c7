"""What `changewire doctor` asks of NATS beside the checks that a watcher has to pass anyway: the server, JetStream and
its limits, the publish modes, and how the stream of one watcher is set up.

Each answer is a Finding. Nothing is left changed: the publish modes are tried on a stream that is made for the trial
and removed (`trial.py`). Whether a stream can carry a watcher at all says `streams.assess`, and why it is not faster
`advice.py`.
"""

from collections.abc import Mapping
from typing import Any, Final

from app.domain.errors import ChangewireError, NotAuthorised, SinkUnavailable
from app.domain.findings import Finding, Level
from app.domain.watcher import Watcher
from app.jetstream.advice import WAYS, why_slower
from app.jetstream.client import CONNECT_SECONDS
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import ApiError, refusal
from app.jetstream.stream_api import StreamApi, unless_missing
from app.jetstream.streams import SWITCHES, Stream, assess, new_config, version_numbers
from app.jetstream.trial import try_modes

ABOUT: Final = "NATS"
USUAL_PAYLOAD: Final = 1024 * 1024
"""nats-server's default."""
LEAST_PAYLOAD: Final = 8 * 1024
"""A claim check, and the headers of a message with the longest subject, need about as much."""
NEARLY: Final = 0.9
_OLD: Final = (
    "update nats-server to 2.14 or later for fast ingest (2.12: atomic batches); until then a slower way is used, and "
    "nothing is lost by it"
)
_FASTER: Final = "nothing, if it is fast enough; fast ingest, which is faster on streams with one replica, needs 2.14"
_ENABLE: Final = "start nats-server with -js (or jetstream {} in its configuration), and enable it for this account"


class NatsExaminer:
    """The questions, over a connection that has been started."""

    def __init__(self, connection: NatsConnection, servers: int) -> None:
        self._connection = connection
        self._api = StreamApi(connection)
        self._patience = 3.0 * CONNECT_SECONDS * servers + 1

    async def reach(self) -> list[Finding]:
        """Whether a server answers, its version, and the size of message it takes."""
        try:
            await self._connection.ready(self._patience)
        except SinkUnavailable as error:
            return [_unreachable(str(error))]
        version = self._connection.server_version
        old = version_numbers(version) < SWITCHES["allow_atomic"]
        reached = Finding(ABOUT, "reachable", Level.OK, "answers")
        told = Finding(ABOUT, "version", Level.WARNING if old else Level.OK, version, _OLD if old else "")
        return [reached, told, _payload(self._connection.max_payload)]

    async def look_at_jetstream(self) -> list[Finding]:
        """JetStream for this account, its limits, and the publish modes."""
        try:
            account = await self._api.call("INFO")
        except NotAuthorised as error:
            advice = "nothing, where each watcher's stream below is fine; else let the account publish to $JS.API.>"
            return [Finding(ABOUT, "JetStream", Level.WARNING, str(error), advice)]
        except ApiError as error:
            return [Finding(ABOUT, "JetStream", Level.PROBLEM, f"is not enabled for the account ({error})", _ENABLE)]
        except SinkUnavailable as error:
            return [Finding(ABOUT, "JetStream", Level.PROBLEM, str(error), _ENABLE)]
        return [_limits(account), await self._modes()]

    async def look_at_stream(self, watcher: Watcher, *, published: bool) -> list[Finding]:
        """How the watcher's stream is set up. `published` says that the watcher has come to a position on it."""
        name = watcher.sink.stream
        try:
            stream = await unless_missing(self._api.look(watcher))
        except ApiError as error:
            return [Finding(watcher.name, "stream", Level.PROBLEM, str(refusal(error, name)), "see the server's log")]
        except (SinkUnavailable, NotAuthorised) as error:
            advice = f"let the account publish to $JS.API.STREAM.MSG.GET.{name} and $JS.API.STREAM.INFO.{name}"
            return [Finding(watcher.name, "stream", Level.PROBLEM, str(error), advice)]
        if stream is None:
            return [_absent(watcher, published=published)]
        publishing = _publishing(stream, watcher, self._connection.max_subject)
        return [publishing, _window(stream, watcher), *_stores(stream, watcher)]

    async def _modes(self) -> Finding:
        check = "publish modes"
        try:
            found = await try_modes(self._api)
        except (ApiError, ChangewireError) as error:
            return Finding(
                ABOUT, check, Level.WARNING, f"could not be tried: NATS refuses a stream for the trial: {error}",
                "make room for another stream in the account",
            )  # fmt: skip
        how = "tried"
        if found is None:
            how = "by its version, since the account may not create a stream for the trial"
            version = version_numbers(self._connection.server_version)
            found = frozenset(name for name, since in SWITCHES.items() if version >= since)
        if "allow_batched" in found:
            return Finding(ABOUT, check, Level.OK, f"fast ingest and atomic batches ({how})")
        if "allow_atomic" in found:
            return Finding(ABOUT, check, Level.OK, f"atomic batches, no fast ingest ({how})", _FASTER)
        said = f"neither fast ingest nor atomic batches ({how})"
        return Finding(ABOUT, check, Level.WARNING, said, _OLD)


def _unreachable(reason: str) -> Finding:
    advice = "see that NATS_URL names the right servers, that nats-server runs, and that no firewall is in between"
    if "credentials" in reason or "authorization" in reason:
        advice = "correct the user in NATS_URL, or CHANGEWIRE_NATS_USER and _PASSWORD, _TOKEN, _CREDS, _NKEY_SEED_FILE"
    elif "certificate" in reason or "TLS" in reason:
        advice = "see CHANGEWIRE_NATS_TLS_CA, _CERT and _KEY, and tls:// in NATS_URL"
    return Finding(ABOUT, "reachable", Level.PROBLEM, reason, advice)


def _payload(limit: int) -> Finding:
    check, found = "max_payload", f"{_size(limit)} a message"
    if limit < LEAST_PAYLOAD:
        advice = "set max_payload to 1MB in nats-server's configuration: not even a claim check is sure to fit"
        return Finding(ABOUT, check, Level.PROBLEM, found, advice)
    if limit < USUAL_PAYLOAD:
        advice = (
            "set max_payload to 1MB or more in nats-server's configuration: what is larger goes to the object store"
        )
        return Finding(ABOUT, check, Level.WARNING, found, advice)
    return Finding(ABOUT, check, Level.OK, found)


def _limits(account: Mapping[str, Any]) -> Finding:
    """Reads the account's limits (`$JS.API.INFO`); with tiers there is one set for each number of replicas."""
    tiers = account.get("tiers") or {"": account}
    used: list[str] = []
    for name, tier in tiers.items():
        limits = tier.get("limits") or {}
        for what, there, most in (
            ("storage", tier.get("storage", 0), limits.get("max_storage", -1)),
            ("streams", tier.get("streams", 0), limits.get("max_streams", -1)),
        ):
            if most > 0 and there >= NEARLY * most:
                used.append(f"{name} {what}: {there} of {most}".strip())
    if used:
        advice = "raise the account's limits, or remove what is not needed: a full account takes no more changes"
        return Finding(ABOUT, "JetStream", Level.WARNING, f"is nearly full ({', '.join(used)})", advice)
    return Finding(ABOUT, "JetStream", Level.OK, "enabled for the account")


def _absent(watcher: Watcher, *, published: bool) -> Finding:
    name = watcher.sink.stream
    if published:
        return Finding(
            watcher.name, "stream", Level.WARNING, f"{name} is gone, and this watcher has published to it",
            f"see docs/concepts.md on gaps: it goes on, or fails, as on_history_lost says ({watcher.on_history_lost})",
        )  # fmt: skip
    return Finding(watcher.name, "stream", Level.OK, f"{name} does not exist yet; it is created at the start")


def _publishing(stream: Stream, watcher: Watcher, max_subject: int) -> Finding:
    mode = assess(stream, watcher, max_subject)  # `check_sink` has refused what it would refuse
    slower = why_slower(stream, watcher, mode)
    said = f"{stream.name}, published to {WAYS[mode]}"
    if slower is None:
        return Finding(watcher.name, "stream", Level.OK, said)
    usual = mode == "atomic" or watcher.sink.stream_settings == "connector"
    advice = f"nothing, if it is fast enough. {slower.advice}"
    return Finding(
        watcher.name, "stream", Level.OK if usual else Level.WARNING, f"{said}, because {slower.why}", advice
    )


def _window(stream: Stream, watcher: Watcher) -> Finding:
    has = int(stream.config.get("duplicate_window", 0)) / 1e9
    asked = int(new_config(watcher)["duplicate_window"]) / 1e9
    check, found = "duplicate window", f"{has:g} s"
    if has >= asked:
        return Finding(watcher.name, check, Level.OK, found)
    return Finding(
        watcher.name, check, Level.WARNING, f"{found}, the watcher asks for {asked:g} s",
        f"nats stream edit {stream.name} --dupe-window {asked:g}s. Changewire does not rely on it; it guards against "
        "other writers of the same ids, such as mongodb-nats-connector",
    )  # fmt: skip


def _stores(stream: Stream, watcher: Watcher) -> list[Finding]:
    """What else differs from the watcher's settings, or is about to stop it."""
    found = []
    config, sink = stream.config, watcher.sink
    replicas = int(config.get("num_replicas", 1))
    if replicas < sink.replicas:
        advice = f"nats stream edit {stream.name} --replicas {sink.replicas}: an existing stream's are never changed"
        said = f"{replicas}, the watcher asks for {sink.replicas}"
        found.append(Finding(watcher.name, "replicas", Level.WARNING, said, advice))
    limit = int(config.get("max_bytes", -1))
    if config.get("discard") == "new" and 0 < limit * NEARLY <= int(stream.state.get("bytes", 0)):
        advice = f"raise the stream's max_bytes, or purge it: with discard new, a full stream stops {watcher.name}"
        said = f"{stream.state['bytes']} of {limit} bytes"
        found.append(Finding(watcher.name, "room", Level.WARNING, said, advice))
    largest = stream.max_message
    if largest is not None and largest < LEAST_PAYLOAD:
        advice = f"nats stream edit {stream.name} --max-msg-size -1"
        found.append(Finding(watcher.name, "max_msg_size", Level.PROBLEM, f"{largest} bytes", advice))
    return found


def _size(count: int) -> str:
    return f"{count / 1024:g} KiB" if count < USUAL_PAYLOAD else f"{count / USUAL_PAYLOAD:g} MiB"
