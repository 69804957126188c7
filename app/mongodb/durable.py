"""How all that Changewire stores in MongoDB is read and written: by a majority, on the primary, bounded in time."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from bson import CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

SECONDS: Final = 5.0
"""The bound of every call: server selection, retries and the majority's acknowledgement together."""
DURABLE: Final[Mapping[str, Any]] = {
    "codec_options": CodecOptions(tz_aware=True, tzinfo=UTC),
    "read_preference": ReadPreference.PRIMARY,
    "read_concern": ReadConcern("majority"),
    "write_concern": WriteConcern("majority"),
}
"""Options of a collection."""
