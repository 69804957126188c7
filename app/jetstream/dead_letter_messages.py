"""Dead letters and receipts as messages: which header says what. Pure: no I/O.

`docs/dead-letters.md` describes the headers for those who read the stream themselves.
"""

from datetime import UTC, datetime
from typing import Any, Final

from app.domain.dead_letters import DeadLetter, Receipt, Unpublishable, brief, name_of
from app.jetstream.stream_api import headers_of

Headers = list[tuple[str, str]]

KEY_LIMIT: Final = 1024
"""A document's key that is longer is left out of the headers."""
ERROR_LIMIT: Final = 500
SHORT_ERROR: Final = 100


def letter_headers(watcher: str, letter: Unpublishable, epoch: int) -> Headers:
    headers = [
        ("Changewire-Watcher", watcher),
        ("Changewire-Token", brief(letter.token)),
        ("Changewire-Operation", letter.operation),
        ("Changewire-Reason", letter.reason),
        ("Changewire-Error", letter.error[:ERROR_LIMIT]),
        ("Changewire-Epoch", str(epoch)),
        ("Changewire-Size", str(len(letter.raw))),
    ]
    if letter.key is not None and len(letter.key) <= KEY_LIMIT:
        headers.append(("Changewire-Key", letter.key))
    if letter.namespace is not None:
        headers.append(("Changewire-Namespace", letter.namespace))
    if letter.reduced:
        headers.append(("Changewire-Reduced", ", ".join(letter.reduced)))
    return headers


def object_header(bucket: str, name: str) -> tuple[str, str]:
    """Return the header that says where the object store has the event."""
    return ("Changewire-Object", f"{bucket}/{name}")


def shortened(headers: Headers, letter: Unpublishable) -> Headers:
    """Return a letter's headers for a server that takes very small messages only."""
    short = {"Changewire-Error": letter.error[:SHORT_ERROR], "Changewire-Token": name_of(letter.token)}
    return [(key, short.get(key, value)) for key, value in headers if key != "Changewire-Key"]


def receipt_headers(watcher: str, receipt: Receipt) -> Headers:
    return [
        ("Changewire-Watcher", watcher),
        ("Changewire-Token", brief(receipt.token)),
        ("Changewire-Epoch", str(receipt.epoch)),
        ("Changewire-Fence", str(receipt.fence)),
        ("Changewire-Created", receipt.created),
    ]


def read_letter(message: dict[str, Any], raw: bytes | None) -> DeadLetter:
    """Read a letter of a message as the API gives it; `raw` is its event."""
    headers = headers_of(message)
    time = datetime.fromisoformat(str(message["time"]).partition(".")[0].rstrip("Z")).replace(tzinfo=UTC)
    return DeadLetter(
        sequence=int(message["seq"]),
        token=headers.get("Changewire-Token", ""),
        operation=headers.get("Changewire-Operation", ""),
        reason=headers.get("Changewire-Reason", ""),
        error=headers.get("Changewire-Error", ""),
        time=time.timestamp(),
        size=int(headers.get("Changewire-Size", 0)),
        epoch=int(headers.get("Changewire-Epoch", 0)),
        key=headers.get("Changewire-Key"),
        object=headers.get("Changewire-Object"),
        reduced=headers.get("Changewire-Reduced"),
        raw=raw,
        namespace=headers.get("Changewire-Namespace"),
    )


def read_receipt(message: dict[str, Any]) -> Receipt:
    headers = headers_of(message)
    return Receipt(
        token=headers["Changewire-Token"],
        epoch=int(headers["Changewire-Epoch"]),
        fence=int(headers["Changewire-Fence"]),
        created=headers["Changewire-Created"],
        sequence=int(message["seq"]),
    )
