"""What an error says, in words that a person may read and a log may keep.

The server's words reach the message, since they say most. What may quote a document is taken out of them.
"""

import re
from datetime import UTC, datetime
from typing import Final

from pymongo.errors import OperationFailure, PyMongoError

_DRIVER_NOISE: Final = re.compile(
    r",? Topology Description:.*|,? Timeout: [0-9.]+s| \(configured timeouts: [^)]*\)|\[Errno [0-9]+\] ", re.DOTALL
)
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*"|\{.*\}""", re.DOTALL)
"""What an expression's error quotes comes out of documents: strings in quotes, sub-documents in braces."""
_LONGEST: Final = 600


def words(error: PyMongoError) -> str:
    """Return what the server (or the driver) says, without the reply that pymongo appends and in bounded length."""
    if isinstance(error, OperationFailure):
        details = error.details or {}
        text = str(details.get("errmsg") or error).partition(", full error:")[0]
        return f"{text[:_LONGEST]} (code {error.code})"
    text = str(error).partition(", full error:")[0]  # a primary that stepped down: the reply is raw bytes here
    return _DRIVER_NOISE.sub("", text).replace(",", ", ").replace(",  ", ", ")[:_LONGEST]


def quiet_words(error: PyMongoError) -> str:
    """As `words`, without anything that may be quoted from a document."""
    return _QUOTED.sub("…", words(error)) if isinstance(error, OperationFailure) else words(error)


def iso(seconds: float) -> str:
    """Write seconds since 1970 as `2026-01-01T00:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
