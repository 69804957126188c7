"""The limit: Changewire without its encoding, to see how much of the time that takes. `python -m bench.limit serve`.

The service as it is, in a process where the codec that it composes hands on the event's own BSON as the message's body,
and reads from its first bytes only what publishing needs: token, operation and time. All else is done: reading,
splitting replies into events, fencing, ids, atomic batches, acknowledgements, checkpoints, metrics.

What it publishes is of no use to anybody, and a little smaller than the JSON. Not its business: being started and
measured (`contenders.py`).
"""

import re
import sys
from struct import Struct

from app.domain.events import Change
from app.pipeline.batch_encoder import Codec
from app.ports import SourceBatch

# Where a change event begins: {_id: {_data: token}, operationType, clusterTime, wallTime, …}, and before that, in a
# transaction, its number and session.
_EVENT = re.compile(
    rb".{4}(?:\x12txnNumber\x00.{8}\x03lsid\x00.{72})?\x03_id\x00.{4}\x02_data\x00.{4}([0-9A-F]+)\x00\x00"
    rb"\x02operationType\x00.{4}([A-Za-z]+)\x00\x11clusterTime\x00.{8}\x09wallTime\x00(.{8})",
    re.DOTALL,
)
_date = Struct("<q").unpack
_NAMES = {name.encode(): name for name in ("insert", "update", "delete")}
_PLAIN = {
    size: Struct(f"<4xB19x{size - 1}s21x6s32xq").unpack_from
    for size in range(1, 256)  # the token's with its NUL
}
"""The same outside transactions, where the operation has six letters: what follows `_id`'s type has its fixed place."""


def encode(raw: bytes, id_suffix: str = "") -> Change:
    """The change whose body is the event itself. Raises ValueError where that is not laid out as events are."""
    kind, data, name, wall = _PLAIN[raw[20] or 1](raw)
    operation = _NAMES.get(name)
    if kind != 3 or operation is None:
        return _elsewhere(raw, id_suffix)
    token = data.decode()
    return Change(token, operation, raw, wall / 1000, token + id_suffix if id_suffix else token)


def _elsewhere(raw: bytes, id_suffix: str) -> Change:
    found = _EVENT.match(raw)
    if found is None:
        raise ValueError(f"not a change event as they are laid out: {raw[:100]!r}")
    data, name, wall = found.groups()
    token = data.decode()
    return Change(token, name.decode(), raw, _date(wall)[0] / 1000, token + id_suffix)


class Raw(Codec):
    """The codec of the limit: a whole batch at once, and no thread, which would take longer than that does."""

    async def transcoded(self, batch: SourceBatch, suffix: str) -> list[Change | None]:
        return [encode(raw, suffix) for raw in batch.events]


def main() -> int:
    """Run Changewire's command line with this codec in the place of its own."""
    from app import __main__, main
    from app.formats.extended_json import identify, reduced

    assert callable(main.codec_of), "what composes the codec"
    # Nothing in the service is made for this: it is exchanged where `create_app` looks for it.
    vars(main)["codec_of"] = lambda settings: Raw(encode, reduced, identify)
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
