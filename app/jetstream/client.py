"""One connection of nats-py's that ends when it is lost, and the only place where nats-py's private parts are touched.

`tests/integration/jetstream/test_connection.py` fails where a release of nats-py changes one of them. After a loss,
`connection.py` makes the next one.
"""

import asyncio
import fcntl
import ssl
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client
from nats.nuid import NUID

from app.config import key_files
from app.config.addresses import signed_in
from app.domain.errors import SinkUnavailable
from app.jetstream.errors import OUR_CERTIFICATE, describe

CONNECT_SECONDS = 2
PING_SECONDS = 2
PILE_BYTES = 64 * 1024
"""Only a larger pile of unsent bytes tells something: the kernel of a frozen server takes a smaller one too, and a slow
link sends it before the silence counts."""

OWN_SUBSCRIPTIONS = 1_000_000
"""Above the numbers that nats-py gives to its subscriptions."""

Heard = Callable[[bytes, bytes, bytes | None], None]
"""Takes a message to a subject that is listened to: subject, data, headers. It never raises and never waits."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """How to connect. Files are paths; each is read again for every attempt, so that it may be replaced."""

    urls: tuple[str, ...]
    """`nats://` or `tls://`, with or without user and password; tried in random order."""
    name: str = "changewire"
    """How the server's monitoring shows the connection."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    password_file: str | None = None
    token_file: str | None = None
    creds_file: str | None = None
    nkey_seed_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_handshake_first: bool = False
    """Whether TLS begins before the server introduces itself, as a server with `handshake_first` wants it."""
    inbox_prefix: str = "_INBOX"
    """How the subjects begin on which answers arrive."""

    def sign_in(self) -> tuple[str | None, str | None, str | None]:
        """Return user, password and token for a server whose URL has none: the settings' own, else those of another
        URL. A server that its cluster has told of takes what the others take."""
        password, token = self._now(self.password, self.password_file), self._now(self.token, self.token_file)
        if self.user is None and token is None and not self.creds_file and not self.nkey_seed_file:
            found = (signed_in(url)[1:] for url in self.urls)
            return next((each for each in found if each != (None, None, None)), (None, None, None))
        return self.user, password, token

    def _now(self, value: str | None, path: str | None) -> str | None:
        """Return a password or token as it is now: what its file holds, where it is in one that can be read."""
        if path is None:
            return value
        try:
            return Path(path).read_text().strip() or value
        except (OSError, UnicodeDecodeError):
            return value  # the last one that is known: a file that is being replaced is missing for a moment

    def problem(self) -> str | None:
        """Return what is wrong with the files, naming their variables; nats-py itself would hang, or say little."""
        looked = (
            ("CHANGEWIRE_NATS_CREDS", self.creds_file, key_files.credentials_problem),
            ("CHANGEWIRE_NATS_NKEY_SEED_FILE", self.nkey_seed_file, key_files.nkey_problem),
            ("CHANGEWIRE_NATS_TLS_CA", self.tls_ca, key_files.certificates_problem),
            ("CHANGEWIRE_NATS_TLS_CERT", self.tls_cert, key_files.certificates_problem),
            ("CHANGEWIRE_NATS_TLS_KEY", self.tls_key, self._key_problem),
        )
        for variable, path, look in looked:
            problem = look(Path(path)) if path else None
            if problem is not None:
                return f"{variable} names {path}, which {problem}"
        return None

    def _key_problem(self, path: Path) -> str | None:
        return key_files.private_key_problem(path, Path(self.tls_cert)) if self.tls_cert else None


class OneConnection(Client):
    """One connection, from its making to its loss.

    Overridden: the server's introduction (which may lack TLS), what happens to a message (acknowledgements take a short
    cut), a pong, an error of the server and one of the socket (both only resolve `lost`; nats-py would reconnect or
    close, and wait for the peer in doing so).
    Used: `_transport` with its `_io_writer`, the subscription's `_id`, `_server_info`, `_pending`.
    """

    def __init__(
        self,
        on_reply: Callable[[bytes, bytes, bytes | None], None],
        on_forbidden: Callable[[str], None],
        inbox_prefix: str = "_INBOX",
    ) -> None:
        super().__init__()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.inbox = f"{inbox_prefix}.{NUID().next().decode()}."
        self.last_failure: Exception | str | None = None
        self._on_reply = on_reply
        self._on_forbidden = on_forbidden
        self._inbox_sid = -1
        self._listeners: dict[int, Heard] = {}
        self._listened = OWN_SUBSCRIPTIONS
        self._inbox_cut = len(self.inbox)
        self._heard = 0
        self._sent = 0
        self._taken = 0
        self._waiting = 0
        self._host: str | None = None
        self.address: tuple[str, str | None] = ("", None)
        """URL, and name in the certificate, of the server that it was made to."""
        self._tls_asked = False

    @property
    def info(self) -> dict[str, Any]:
        """What the server said about itself when the connection was made."""
        return self._server_info

    async def establish(self, url: str, tls_name: str | None, options: NatsOptions) -> None:
        """Connect to one server and subscribe to the inbox.

        Raises OSError, nats.errors.Error, TimeoutError, ValueError, SinkUnavailable; `last_failure` may know more.
        """
        if urlsplit(url).scheme in ("ws", "wss"):
            raise ValueError("WebSocket is not supported; use nats:// or tls://")
        problem = options.problem()
        if problem is not None:
            raise ValueError(problem)
        self.address = (url, tls_name)
        self._host = urlsplit(url if "//" in url else f"//{url}").hostname
        tls = _tls(options)
        self._tls_asked = tls is not None or url.startswith("tls://")
        try:
            await self._connect_once(url, options, {"tls_hostname": tls_name, "tls": tls})
        except (ConnectionError, nats.errors.UnexpectedEOF, nats.errors.ConnectionClosedError):
            if self._server_info.get("tls_verify"):  # its alert may be lost with the connection
                self.last_failure = f"the server wants a certificate and hung up; {OUR_CERTIFICATE}"
            raise
        await self._open_inbox()

    async def _connect_once(self, url: str, options: NatsOptions, tls: dict[str, Any]) -> None:
        async def note(error: Exception) -> None:
            if not isinstance(error, nats.errors.NoServersError):
                self.last_failure = error

        address, user, password, token = signed_in(url)
        if user is None and token is None:
            user, password, token = options.sign_in()
        await self.connect(
            servers=[address],
            name=options.name,
            error_cb=note,
            allow_reconnect=False,
            connect_timeout=CONNECT_SECONDS,
            reconnect_time_wait=0,
            max_reconnect_attempts=1,  # 0 would try indefinitely
            ping_interval=PING_SECONDS,
            max_outstanding_pings=1_000_000,  # `progress` judges better: a slow link delays pongs too
            pending_size=0,
            user=user,
            password=password,
            token=token,
            user_credentials=options.creds_file,
            nkeys_seed=options.nkey_seed_file,
            tls_handshake_first=options.tls_handshake_first and self._tls_asked,
            inbox_prefix=options.inbox_prefix,  # of nats-py's own requests, which the object store makes
            **{name: value for name, value in tls.items() if value},
        )

    async def _open_inbox(self) -> None:
        """Subscribe to the inbox, and make sure that the server has allowed it."""
        self.last_failure = None
        subscription = await self.subscribe(self.inbox + ">")
        self._inbox_sid = subscription._id
        for _ in range(2):  # nats-py may send the first ping ahead of the subscription
            await self.flush(CONNECT_SECONDS)
        if self.last_failure is not None:
            self.last_failure = None
            prefix = self.inbox.rpartition(".")[0].rpartition(".")[0]
            raise SinkUnavailable(f"the account may not subscribe to {prefix}.>, where answers arrive")

    def send(self, data: bytes) -> None:
        """Write whole frames to the socket, past nats-py's buffer, which outlives the connection. Never waits."""
        self._sent += len(data)
        try:
            self._transport.write(data)  # type: ignore[union-attr]
        except (OSError, RuntimeError) as error:  # uvloop raises on a closed transport, asyncio does not
            self.lose(describe(error))

    def listen(self, subject: str, heard: Heard) -> int:
        """Subscribe past nats-py, which would give each subscription a queue and a task. Return its number."""
        self._listened += 1
        self._listeners[self._listened] = heard
        self.send(f"SUB {subject} {self._listened}\r\n".encode())
        return self._listened

    def unlisten(self, number: int) -> None:
        if self._listeners.pop(number, None) is not None:
            self.send(f"UNSUB {number}\r\n".encode())

    def progress(self) -> tuple[int, int]:
        """Return two numbers of which one grows as long as the server says something, or takes what has piled up."""
        waiting = self._socket().get_write_buffer_size() + self._unacknowledged()
        if self._waiting >= PILE_BYTES:
            # Not simply the difference: nats-py's own pings make the buffer grow too.
            self._taken = max(self._taken, self._sent - waiting)
        self._waiting = waiting
        return self._heard, self._taken

    def lose(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)

    def discovered(self) -> list[str]:
        """Return the URLs of the cluster's other servers."""
        return [f"{server.scheme}://{server.netloc}" for server in self.discovered_servers]

    def tls_name_of(self, url: str) -> str | None:
        """Return the name in the certificate of a discovered server that is known by its address alone."""
        if not self._server_info.get("tls_required"):
            return None
        try:
            ip_address(urlsplit(url).hostname or "")
        except ValueError:
            return None
        return self._host

    async def dispose(self) -> None:
        """Give the connection up at once, sending nothing more. Never raises."""
        self._pending.clear()
        self._pending_data_size = 0
        if self._transport:
            self._socket().abort()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.close()
        except Exception as error:  # noqa: BLE001 - whatever it says, the connection is given up
            log.debug("nats_close_failed", reason=describe(error))

    def _unacknowledged(self) -> int:
        """Return the bytes that the kernel holds until the peer's has them; 0 where it does not tell, or is closed."""
        try:
            held = fcntl.ioctl(self._socket().get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0
        return int.from_bytes(held, sys.byteorder)

    def _socket(self) -> asyncio.WriteTransport:
        transport: asyncio.WriteTransport = self._transport._io_writer.transport  # type: ignore[union-attr]
        return transport

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._tls_asked and not info.get("tls_required"):
            # nats-py would go on without encryption, and send the credentials next.
            raise nats.errors.Error(
                "TLS is asked for (tls:// or CHANGEWIRE_NATS_TLS_*), and the server does not ask it"
            )
        await super()._process_info(info, initial_connection)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._heard += 1
        if sid == self._inbox_sid:
            self._on_reply(subject[self._inbox_cut :], data, headers)
        elif (heard := self._listeners.get(sid)) is not None:
            heard(subject, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]

    async def _process_pong(self) -> None:
        self._heard += 1
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            self.last_failure = err_msg
            self._on_forbidden(err_msg)
        else:
            self.lose(describe(err_msg))

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(describe(e))


def _tls(options: NatsOptions) -> ssl.SSLContext | None:
    if not (options.tls_ca or options.tls_cert):
        return None
    context = ssl.create_default_context(cafile=options.tls_ca)
    if options.tls_cert:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")  # never ask the terminal
    return context
