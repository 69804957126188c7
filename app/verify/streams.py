"""A JetStream stream as a consumer of it sees it: plain nats-py, a pull consumer without acknowledgements.

Not its business: what the messages ought to be (`comparison.py`, `writes.py`).
"""

import asyncio
import contextlib
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from app.config.addresses import signed_in
from app.config.settings import Settings
from app.domain.dead_letters import is_brief, letter_subject, letters_of
from app.domain.gap import OPERATION as GAP
from app.domain.gap import moment
from app.domain.snapshot import HEADER as RUN
from app.domain.tokens import RowPlace, is_token, parse_message_id
from app.domain.watcher import Watcher
from app.verify.bodies import from_json
from app.verify.comparison import described
from app.verify.errors import CannotCompare

CONNECT_SECONDS: Final = 3
CALL_SECONDS: Final = 10.0
OBJECT_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 600.0
"""How long the consumer waits for the history to catch up, and how soon it goes where the command was killed."""
BATCH: Final = 500
PATIENCE_SECONDS: Final = 60.0
"""How long a server may give no answer, or be gone: a loaded one and one that restarts is waited for."""
PAUSE_SECONDS: Final = 0.5
PASSING: Final = (TimeoutError, nats.errors.Error)
"""What calls fail with where a server does not answer, or is gone."""
UNAVAILABLE: Final = (
    nats.errors.NoRespondersError, nats.js.errors.NoStreamResponseError, nats.js.errors.ServiceUnavailableError
)  # fmt: skip
"""What a server says whose JetStream is not there, or not yet."""
LOST_CONSUMER: Final = (nats.errors.NoRespondersError, nats.js.errors.APIError, nats.js.errors.NoStreamResponseError)
_NO_STREAM: Final = 10059
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503


class StreamMessage:
    """`comparison.Message`: one message. `event` is its body, empty where that is no JSON object."""

    def __init__(self, watcher: Watcher, sequence: int, subject: str, headers: Mapping[str, str], data: bytes) -> None:
        self.sequence = sequence
        self._names_collection = watcher.source.is_scope
        self.subject = subject
        self.pointer = headers.get("Changewire-Object")
        self.data = data
        self.event: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            self.event = from_json(data)
        id_ = parse_message_id(headers.get("Nats-Msg-Id"))
        # Another collection's that had these subjects has no place in this order.
        own = id_ is not None and watcher.source.may_have_had(self.namespace)
        original = id_.original if own and id_ is not None else None
        row = None if original in (None, GAP) else RowPlace.parse(original or "")
        self.replayed = row is not None or (
            original is not None and original != GAP and (is_token(original) or is_brief(original))
        )
        self.token = id_.position if own and id_ is not None and (original in (None, GAP)) else None
        if self.replayed:
            self.token = original
            if is_brief(original or ""):
                with contextlib.suppress(KeyError, TypeError):  # a pointer to a large event may lack it
                    self.token = str(self.event["_id"]["_data"])
        self.row = RowPlace.parse(self.token or "")
        self.run = headers.get(RUN)
        self.position = id_.position if id_ is not None else ""
        self.epoch = id_.epoch if id_ is not None else 0
        self.gap = self._gap if original == GAP else None
        self.reduced = frozenset(name for name in headers.get("Changewire-Reduced", "").split(", ") if name)

    @property
    def namespace(self) -> str | None:
        """The collection that it tells of; None where it tells of none, as an invalidate does."""
        match self.event.get("ns"):
            case {"db": database, "coll": collection}:
                return f"{database}.{collection}"
        return None

    @property
    def _gap(self) -> str:
        """What a marker says was reached before it; nothing where the stream that had it is gone."""
        match self.event:
            case {"reason": "history_lost", "from": {"token": str(reached)}} if is_token(reached):
                return reached
        return ""

    @property
    def operation(self) -> str:
        return str(self.event.get("operationType", "message"))

    def __str__(self) -> str:
        if self.gap is not None and self.token is not None:
            begin = f"after {moment(self.gap)}, " if self.gap else ""
            return f"a gap ({self.event.get('reason')}): changes {begin}before {moment(self.token)} are missing"
        return described(self.operation, self.event, collection=self._names_collection)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream is and holds. `created` as the server writes it; `removes`: from its middle, by itself."""

    created: str
    first: int
    last: int
    removes: bool


class Streams:
    """A connection to NATS. An async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = Client()
        self._lost_at = float("-inf")
        """When the connection was last found lost, by the loop's clock."""

    async def __aenter__(self) -> Self:
        await self._reach()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
            await self._client.close()

    async def _reach(self) -> None:
        """Connect to the first server that can be reached. Raises CannotCompare."""
        problem: Exception | None = None
        for url in self._settings.nats_servers:
            try:
                async with asyncio.timeout(3 * CONNECT_SECONDS):
                    self._client = await self._connect(url)
                return
            except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
                problem = error
        raise CannotCompare(f"NATS cannot be reached: {words(problem)}") from problem

    async def _connect(self, url: str) -> Client:
        settings, tls = self._settings, None
        if settings.nats_tls_ca or settings.nats_tls_cert:
            tls = ssl.create_default_context(cafile=settings.nats_tls_ca)
            if settings.nats_tls_cert:
                tls.load_cert_chain(settings.nats_tls_cert, settings.nats_tls_key, password=lambda: "")
        client = _Connection(tls_asked=tls is not None or url.startswith("tls://"))
        address, user, password, token = signed_in(url)
        given: dict[str, Any] = {
            "user": user or settings.nats_user,
            "password": password or (settings.nats_password and settings.nats_password.get_secret_value()),
            "token": token or (settings.nats_token and settings.nats_token.get_secret_value()),
            "user_credentials": settings.nats_creds and str(settings.nats_creds),
            "nkeys_seed": settings.nats_nkey_seed_file and str(settings.nats_nkey_seed_file),
            "tls": tls,
            "tls_handshake_first": settings.nats_tls_handshake_first and (tls is not None or url.startswith("tls://")),
            "inbox_prefix": settings.nats_inbox_prefix.encode(),
        }
        await client.connect(
            servers=[address],
            name="changewire verify",
            error_cb=_quiet,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=CONNECT_SECONDS,
            ping_interval=5,
            **{name: value for name, value in given.items() if value is not None},
        )
        return client

    @property
    def _jetstream(self) -> JetStreamContext:
        return self._client.jetstream(timeout=CALL_SECONDS)

    async def info(self, stream: str) -> StreamInfo:
        """Look at a stream. Raises CannotCompare where there is none, or none that can be compared."""
        answer = await self._ask(f"STREAM.INFO.{stream}")
        if "error" in answer:
            error = answer["error"]
            if error.get("err_code") == _NO_STREAM:
                raise CannotCompare(f"there is no stream {stream}: the watcher has published nothing yet")
            raise CannotCompare(f"the stream {stream} cannot be read: {error.get('description')}")
        config, state = answer["config"], answer["state"]
        if config.get("retention", "limits") != "limits":
            raise CannotCompare(
                f"the stream {stream} has the retention {config['retention']}: consumed messages are gone, so the rest "
                "proves nothing"
            )
        removes = config.get("max_msgs_per_subject", -1) > 0
        return StreamInfo(answer["created"], int(state["first_seq"]), int(state["last_seq"]), removes)

    async def messages(self, watcher: Watcher, last: int) -> AsyncIterator[StreamMessage]:
        """The messages in the watcher's subjects, in their order, up to the sequence `last`.

        Where the server gives no answer in time, or restarts, another consumer goes on after the last message.
        """
        reached, answered = 0, _now()
        while reached < last:
            try:
                async with contextlib.aclosing(self._read(watcher, reached + 1, last)) as messages:
                    async for message in messages:
                        reached = message.sequence
                        yield message
                        answered = _now()
                return
            except PASSING as error:
                await self._make_ready(error, answered)

    async def _read(self, watcher: Watcher, first: int, last: int) -> AsyncGenerator[StreamMessage, None]:
        stream, jetstream = watcher.sink.stream, self._jetstream
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first,
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            inactive_threshold=IDLE_SECONDS,
        )
        reader = await jetstream.pull_subscribe(
            watcher.space, stream=stream, config=config, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        consumer = await reader.consumer_info()
        pending = consumer.num_pending or 0
        try:
            while pending:
                try:
                    batch = await reader.fetch(min(BATCH, pending), timeout=CALL_SECONDS)
                except nats.errors.TimeoutError:
                    pending = (await reader.consumer_info()).num_pending or 0
                    if pending:
                        raise
                    return  # what was to come has been removed from the stream meanwhile
                for each in batch:
                    sequence, pending = each.metadata.sequence.stream, each.metadata.num_pending
                    if sequence > last:
                        return
                    yield StreamMessage(watcher, sequence, each.subject, each.headers or {}, each.data)
        except LOST_CONSUMER as error:  # the node that had it restarts; another one goes on
            raise nats.errors.TimeoutError from error
        finally:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, TimeoutError):
                await reader.unsubscribe()
                await jetstream.delete_consumer(stream, consumer.name)

    async def _ask(self, call: str, body: bytes = b"") -> dict[str, Any]:
        """The answer of JetStream's API to a call that changes nothing."""
        asked = _now()
        while True:
            try:
                reply = await self._client.request(f"$JS.API.{call}", body, timeout=CALL_SECONDS)
                answer: dict[str, Any] = json.loads(reply.data)
                problem = answer.get("error")
                if problem is None or problem.get("code") != _UNAVAILABLE:
                    return answer
                raise nats.js.errors.ServiceUnavailableError(_UNAVAILABLE, problem.get("description"))
            except PASSING as error:
                await self._make_ready(error, asked)

    async def _make_ready(self, error: Exception, answered: float) -> None:
        """Make ready to ask once more after a call that has failed; `answered` is when the last answer came. Raises the
        error where that is of no use.

        A server that was gone says many things until its JetStream is there: all of them pass."""
        connected, now = self._client.is_connected, _now()
        if not connected:
            self._lost_at = now
        passes = isinstance(error, (TimeoutError, nats.js.errors.ServiceUnavailableError))
        was_lost = now - self._lost_at < PATIENCE_SECONDS
        if not (passes or was_lost) or now - answered >= PATIENCE_SECONDS:
            raise error
        await asyncio.sleep(PAUSE_SECONDS)
        if not connected:
            with contextlib.suppress(CannotCompare):
                await self._reach()

    async def letters(self, watcher: Watcher) -> set[str]:
        """The tokens of the changes that the watcher has set aside."""
        found: set[str] = set()
        name, sequence = letters_of(watcher.sink.stream), 0
        space = letter_subject(watcher.sink.stream, watcher.name, "*")
        while True:
            wanted = json.dumps({"seq": sequence + 1, "next_by_subj": space}).encode()
            answer = await self._ask(f"STREAM.MSG.GET.{name}", wanted)
            problem, message = answer.get("error"), answer.get("message")
            if problem is not None and problem.get("code") != _NOT_FOUND:
                raise CannotCompare(f"the dead letters in {name} cannot be read: {problem.get('description')}")
            if message is None:
                return found
            sequence = int(message["seq"])
            for line in b64decode(message.get("hdrs") or "").decode("utf-8", "replace").split("\r\n"):
                header, _, value = line.partition(":")
                if header == "Changewire-Token":
                    found.add(value.strip())

    async def object(self, pointer: str) -> bytes:
        """The body that a claim check stands for, given as `<bucket>/<name>`. Raises ValueError where it is not to be
        had whole."""
        bucket, _, name = pointer.partition("/")
        asked = _now()
        while True:
            try:
                async with asyncio.timeout(OBJECT_SECONDS):
                    found = await (await self._jetstream.object_store(bucket)).get(name)
                data = found.data or b""
                if len(data) == found.info.size:
                    return data
                problem: Exception = nats.errors.UnexpectedEOF()  # nats-py says nothing where its connection broke
            except PASSING as error:
                problem = error
            silent = isinstance(problem, (nats.errors.TimeoutError, *UNAVAILABLE))
            if self._client.is_connected and not silent:
                raise ValueError(f"its object {pointer} is missing or incomplete") from problem
            await self._make_ready(problem, asked)


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Connection(Client):
    """nats-py's client, which would send the credentials in the clear to a server that does not ask for TLS."""

    def __init__(self, *, tls_asked: bool) -> None:
        super().__init__()
        self._tls_asked = tls_asked

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._tls_asked and not info.get("tls_required"):
            raise nats.errors.Error(
                "TLS is asked for (tls:// or CHANGEWIRE_NATS_TLS_*), and the server does not ask it"
            )
        await super()._process_info(info, initial_connection)


def words(error: BaseException | None) -> str:
    """What an error of nats-py or of the network says, for people."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, nats.errors.NoRespondersError):
        return "JetStream is not enabled, for this account at least"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__


async def _quiet(_error: Exception) -> None:
    """nats-py prints errors of its connection by itself; here they end the command with one line."""
