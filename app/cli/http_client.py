"""The service as a command reaches it: a call, or a stream of server-sent events, with errors in the service's words.

The standard library does it: one request per command needs no pool and no proxy. The token travels in a header to the
address that was given and nowhere else (a redirect is reported, not followed), and appears in no message.
"""

import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values

from app.cli import MISUSE, CommandError
from app.domain.plain import plain

DEFAULT_URL = "http://127.0.0.1:8080"
URL, TOKEN = "CHANGEWIRE_URL", "CHANGEWIRE_API_TOKEN"
SECONDS = 30
"""The service itself waits some seconds for its servers before it answers."""
_SHOWN = 200
_VIEWS = ("watchers", "docs", "instances", "healthz", "metrics")
"""What the address has at its end where it was copied from a call or from the page."""


class Refused(CommandError):
    """The service answered with an error. `status` is HTTP's, `lines` what it says, a line for each field."""

    def __init__(self, status: int, lines: list[str]) -> None:
        super().__init__("\n  ".join(lines))
        self.status = status
        self.lines = lines


class Service:
    """The HTTP interface at one address.

    Every call raises Refused, and CommandError where nothing of the kind answers.
    """

    def __init__(self, url: str, token: str | None, seconds: float = SECONDS) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.username is not None:
            raise CommandError(f"the URL must be http://host:port or https://host:port ({URL}, --url)", MISUSE)
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise CommandError(f"the token has characters that no HTTP header can hold ({TOKEN}, --api-token)", MISUSE)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._host, self._port, self._tls = parts.hostname, port, parts.scheme == "https"
        self._token = token
        self._seconds = seconds

    def call(self, method: str, path: str, body: Any = None, *, revision: str | None = None) -> Any:
        """Make a call and return its answer, None where it has no body. A change counts only while the watcher has the
        revision that is given."""
        return self._called(method, path, body, {} if revision is None else {"If-Match": revision})[0]

    def read(self, path: str) -> tuple[Any, str | None]:
        """Read one thing, and its revision where it has one."""
        return self._called("GET", path, None, {})

    def _called(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[Any, str | None]:
        with self._answered(method, path, body, headers) as (answer, _):
            content = answer.read()
        if answer.status >= 300:
            raise self._refusal(answer, content)
        try:
            return json.loads(content) if content else None, answer.headers.get("ETag")
        except ValueError:
            raise self._somebody_else(answer) from None

    def events(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield the name and the data of each server-sent event, for as long as the service sends them.

        Form: the HTML standard, 9.2.6. Names default to `message`; comments and ids are passed over.
        """
        with self._answered("GET", path, None, {"Accept": "text/event-stream"}) as (answer, connected):
            if answer.status >= 300:
                raise self._refusal(answer, answer.read())
            if answer.headers.get_content_type() != "text/event-stream":
                raise self._somebody_else(answer)
            connected.settimeout(None)  # a quiet collection has nothing to say
            name, data = "message", list[str]()
            for line in self._lines(answer):
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line and data:
                    yield name, "\n".join(data)
                if not line:
                    name, data = "message", []
                elif field == "event":
                    name = value
                elif field == "data":
                    data.append(value)

    def _lines(self, answer: http.client.HTTPResponse) -> Iterator[str]:
        try:
            for raw in answer:
                yield raw.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"the connection to {self.url} broke: {_words(error)}") from error

    @contextmanager
    def _answered(
        self, method: str, path: str, body: Any, more: Mapping[str, str]
    ) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        headers = {"Accept": "application/json", **more}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        payload = None
        if body is not None:
            payload = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            connection.request(method, self._prefix + path, payload, headers)
            connected: socket.socket = connection.sock  # an answer without a length takes it along
            yield connection.getresponse(), connected
        except ssl.SSLCertVerificationError as error:
            raise CommandError(
                f"the certificate of {self.url} is not trusted ({error.verify_message.rstrip('.')}); "
                "set SSL_CERT_FILE to the authority that signed it"
            ) from error
        except http.client.BadStatusLine as error:
            if isinstance(error, http.client.RemoteDisconnected):
                raise CommandError(self._unreached("it closed the connection without an answer")) from error
            raise CommandError(f"what answers at {self.url} is not Changewire (it does not speak HTTP)") from error
        except (OSError, http.client.HTTPException) as error:
            why = "it does not answer in time" if isinstance(error, TimeoutError) else _words(error)
            raise CommandError(self._unreached(why)) from error
        finally:
            connection.close()

    def _unreached(self, why: str) -> str:
        return f"the service at {self.url} cannot be reached: {why}; set its address with {URL} or --url"

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(str(self._host), self._port, timeout=self._seconds, context=context)
        return http.client.HTTPConnection(str(self._host), self._port, timeout=self._seconds)

    def _refusal(self, answer: http.client.HTTPResponse, content: bytes) -> CommandError:
        if answer.status < 400:
            return CommandError(
                f"{self.url} redirects to {answer.headers.get('Location')}; use that address with --url"
            )
        try:
            problem = json.loads(content)
            lines = [plain(line) for line in map(field_line, problem.get("errors", ()))]
            lines = lines or [plain(str(problem["detail"]))]
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._somebody_else(answer)
        if answer.status == 401:
            lines.append(f"set the token with {TOKEN}, {TOKEN}_FILE or --api-token")
        above, _, last = self.url.rpartition("/")
        if answer.status == 404 and self._prefix and last in _VIEWS:
            lines.append(f"{self.url} is not where the service begins; try {above} ({URL}, --url)")
        return Refused(answer.status, lines)

    def _somebody_else(self, answer: http.client.HTTPResponse) -> CommandError:
        kind = answer.headers.get("Content-Type", "nothing")[:_SHOWN]
        return CommandError(f"what answers at {self.url} is not Changewire ({answer.status}, {kind})")


def watcher_path(name: str, call: str = "") -> str:
    """The path of a watcher, or of one of the calls below it. Raises CommandError for what is no watcher's name."""
    if not name or name in (".", "..") or "/" in name:
        raise CommandError(f"there is no watcher {name!r}: a name is not empty and has no slash", MISUSE)
    return f"/watchers/{quote(name, safe='')}" + (f"/{call}" if call else "")


def field_line(error: Mapping[str, Any]) -> str:
    """What is wrong with one field, in a line. In a list of watchers the name of one stands in the place of its number;
    one without a name keeps it: `[3].name: is required`. Raises KeyError for what is no such error."""
    field, watcher = str(error["field"]), error.get("watcher")
    if watcher is not None:
        field = re.sub(r"^\[[0-9]+\]\.?", "", field)
    return ": ".join(str(part) for part in (watcher, field, error["detail"]) if part)


def connect(url: str | None, token: str | None, seconds: float = SECONDS) -> Service:
    """The service that the flags name, else the environment, else `.env`; it may take so long to answer."""
    given = _environment()
    return Service(url or given.get(URL) or DEFAULT_URL, token or _token(given), seconds)


def _environment() -> Mapping[str, str]:
    path = Path(".env")
    try:
        stored = dotenv_values(path) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", MISUSE) from None
    return {name: value for name, value in {**stored, **os.environ}.items() if value and value.strip()}


def _token(given: Mapping[str, str]) -> str | None:
    path = given.get(f"{TOKEN}_FILE")
    if path is None:
        return given.get(TOKEN)
    if TOKEN in given:
        raise CommandError(f"{TOKEN} and {TOKEN}_FILE are both set; set one of them", MISUSE)
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise CommandError(f"{TOKEN}_FILE names {path}, which cannot be read", MISUSE) from None


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "there is no host with this name"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS (write http://)"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
