"""A gap: changes that are missing on the stream for good, and the one message that says so in their place.

The marker's id begins with the position that the watcher continues from. So any writer that reads the stream back
after it continues there, and never marks the gap a second time. Whether there is a gap is found by the opening
(`pipeline/opening.py`).
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from app.domain.dead_letters import brief
from app.domain.errors import HistoryLost
from app.domain.events import Change
from app.domain.tokens import MessageId, cluster_time
from app.domain.watcher import Watcher

OPERATION: Final = "gap"
"""The marker's operation: in its subject, its body, and its id."""
HEADER: Final = "Changewire-Gap"

Reason = Literal["history_lost", "stream_recreated"]
_WORDS: Final[dict[Reason, str]] = {
    "history_lost": "the oplog no longer reached back to the position",
    "stream_recreated": "the stream was deleted and recreated",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing: the changes after the token `reached`, up to the token `resumed`.

    Of a stream that was recreated, what it held up to `reached` is missing too, and `resumed` may be earlier than
    `reached`: the changes between are published again, in the new `epoch`.
    """

    reason: Reason
    reached: str
    resumed: str
    epoch: int

    def marker(self, watcher: Watcher) -> Change:
        """Return the message that stands for the gap: in each collection that the watcher reads."""
        source = watcher.source
        names = {"db": source.database, "coll": source.collection}
        namespace = {key: name for key, name in names.items() if name}
        body = {
            "operationType": OPERATION,
            **({"ns": namespace} if namespace else {}),
            "from": _bound(self.reached),
            "to": _bound(self.resumed),
            "reason": self.reason,
        }
        return Change(
            token=self.resumed,
            operation=OPERATION,
            body=json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(),
            wall_time=0.0,
            id=str(MessageId(self.resumed, self.epoch, OPERATION)),
            subject=watcher.subjects.subject("", "", OPERATION) if watcher.subjects.names_sources else "",
            headers=((HEADER, self.reason),),
        )

    def __str__(self) -> str:
        return f"{_WORDS[self.reason]}: a gap from {moment(self.reached)} to {moment(self.resumed)}"


def history_gap(reached: str, resumed: str, epoch: int) -> Gap:
    """Return the gap between a position that the oplog has lost and the one to go on from, within one epoch.

    Raises HistoryLost where that would lead back: what is on the stream already would come again.
    """
    if resumed <= reached:
        raise HistoryLost(
            f"MongoDB does not read on after {moment(reached)}, though its oplog begins before that; rewind the "
            "watcher to say where it continues"
        )
    return Gap("history_lost", reached, resumed, epoch)


def moment(token: str) -> str:
    """Write a token's cluster time as `2026-01-01T00:00:00Z`."""
    return datetime.fromtimestamp(cluster_time(token).seconds, UTC).isoformat().replace("+00:00", "Z")


def _bound(token: str) -> dict[str, Any]:
    time = cluster_time(token)
    return {"token": brief(token), "clusterTime": {"$timestamp": {"t": time.seconds, "i": time.increment}}}
