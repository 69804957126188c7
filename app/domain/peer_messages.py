"""What one instance asks another, and what that answers: an HTTP request without its connection and its secrets.

`Ask` and `Answer` become bytes here. How they travel is decided in `jetstream/peers.py`, how they are signed in
`domain/sealing.py`.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

ASKED_HEADERS: Final = ("accept", "content-type", "if-match", "if-none-match")
"""The headers of a request that travel. Authorization never does: the instance that was asked has decided already."""
_HEAD: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that another instance is to answer. It was allowed by the instance that sends it."""

    method: str
    path: str
    """Decoded, without the query."""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    caller: str = "anonymous"
    """The name of the API token, or `anonymous`."""
    role: str | None = None
    """What the token may do; None without one."""
    remote: str | None = None
    """The client's address, for the audit log."""
    through: str = ""
    """The instance that the client has asked."""

    def to_bytes(self) -> bytes:
        head = {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "caller": self.caller,
            "role": self.role,
            "remote": self.remote,
            "through": self.through,
        }
        return _joined(head, self.body)

    @staticmethod
    def from_bytes(data: bytes) -> "Ask":
        """Raises ValueError for what is not an Ask."""
        head, body = _parted(data)
        try:
            role, remote = head.get("role"), head.get("remote")
            return Ask(
                method=str(head["method"]),
                path=str(head["path"]),
                query=str(head["query"]),
                headers=_pairs(head["headers"]),
                body=body,
                caller=str(head["caller"]),
                role=None if role is None else str(role),
                remote=None if remote is None else str(remote),
                through=str(head["through"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a request: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of the instance that was asked."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return a header by its name in lower case; None where there is none."""
        return next((value for each, value in self.headers if each == name), None)

    def to_bytes(self) -> bytes:
        return _joined({"status": self.status, "headers": self.headers}, self.body)

    @staticmethod
    def from_bytes(data: bytes) -> "Answer":
        """Raises ValueError for what is not an Answer."""
        head, body = _parted(data)
        try:
            return Answer(int(head["status"]), _pairs(head["headers"]), body)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an answer: {error!r}") from error


def _joined(head: dict[str, Any], body: bytes) -> bytes:
    written = json.dumps(head, separators=(",", ":")).encode()
    return _HEAD.pack(len(written)) + written + body


def _parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < _HEAD.size:
        raise ValueError("too short")
    (size,) = _HEAD.unpack_from(data)
    end = _HEAD.size + size
    if end > len(data):
        raise ValueError("cut off")
    head = json.loads(data[_HEAD.size : end])
    if not isinstance(head, dict):
        raise ValueError("its head is no object")  # noqa: TRY004 - what came is wrong, not a type of ours
    return head, data[end:]


def _pairs(given: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in given)
