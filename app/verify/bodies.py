"""Change events as JSON, and what of them has to be equal however much later they are read.

The reference is pymongo's `json_util` in its relaxed mode. Where it and the Go driver write one value in two ways, both
are brought to one here: the zeros at the end of a date's fraction, an obsolete DBPointer, and how many replacement
characters stand for bytes that are no UTF-8.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import CodecOptions, json_util
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument

from app.domain.watcher import Source

RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument,  # level by level: pymongo makes no DBRef of a document that looks like one
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
UNREADABLE: Final = "changewireUnreadable"
"""Marks an event that has no form as JSON."""
_HISTORY: Final = frozenset(
    {"_id", "operationType", "clusterTime", "wallTime", "ns", "to", "documentKey", "updateDescription", "lsid"}
    | {"txnNumber", "collectionUUID", "operationDescription", "stateBeforeChange"}
)
_SORTED: Final = json.JSONEncoder(sort_keys=True)
_REPLACED: Final = re.compile(r"(\\ufffd)+")
_SELECTING: Final = frozenset({"$match", "$redact"})
_LOOKED_UP: Final = re.compile(r"fullDocument(?!BeforeChange)|\$\$ROOT|\$\$CURRENT")
_BEFORE: Final = re.compile(r"fullDocumentBeforeChange|\$\$ROOT|\$\$CURRENT")
_NAMED: Final = 3


def from_bson(event: RawBSONDocument) -> dict[str, Any]:
    """The event as parsed JSON."""
    return from_json(json_util.dumps(event, json_options=json_util.RELAXED_JSON_OPTIONS))


def from_json(text: str | bytes) -> dict[str, Any]:
    """A message's body, parsed. Raises ValueError where it is no JSON object."""
    event = json.loads(text, object_hook=_in_one_way)
    if not isinstance(event, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004 - as for text that is no JSON
    return event


def text_of(value: Any) -> str:
    """One text for equal values: sorted keys; 1, 1.0 and true differ."""
    text = _SORTED.encode(value)
    return _REPLACED.sub(r"\\ufffd", text) if "\\ufffd" in text else text


class Selection:
    """What a watcher's pipeline does with documents that MongoDB looks up for an event: those are not history.

    An update's `fullDocument` and the image before a change may be others, or gone, when the event is read again.
    """

    def __init__(self, source: Source) -> None:
        text = [json.dumps(stage, default=str) for stage in source.pipeline]
        chosen_by = "".join(text[: _after_last(source.pipeline)])
        whole = "".join(text)
        self._after = source.full_document is not None
        self._before = source.full_document_before_change is not None
        self.looks_up = self._after and _LOOKED_UP.search(whole) is not None
        """Whether the pipeline sees a document that was looked up after the change."""
        self.looks_before = self._before and _BEFORE.search(whole) is not None
        self.undecidable: frozenset[str] = frozenset()
        """The operations whose choice depends on such a document, so that it may fall out otherwise today."""
        if self._after and _LOOKED_UP.search(chosen_by):
            self.undecidable |= {"update"}
        if self._before and _BEFORE.search(chosen_by):
            self.undecidable |= {"update", "replace", "delete"}

    def difference(
        self, now: Mapping[str, Any], then: Mapping[str, Any], reduced: frozenset[str] = frozenset()
    ) -> str | None:
        """Name the fields in which what was published differs from what MongoDB says now; None where none does.

        `reduced` are the fields that the message says to lack."""
        if UNREADABLE in now:
            return None
        here, there = (
            {name: value for name, value in self._history_of(event).items() if name not in reduced}
            for event in (now, then)
        )
        if text_of(here) == text_of(there):
            return None
        paths = list(_differing(here, there))
        return ", ".join(paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")

    def _history_of(self, event: Mapping[str, Any]) -> dict[str, Any]:
        looked_up = {"fullDocumentBeforeChange"}
        if event.get("operationType") not in ("insert", "replace"):
            looked_up.add("fullDocument")
        # A field that the pipeline has made of a document that was looked up is as fleeting as that.
        own_fields = not (self.looks_up or self.looks_before)
        return {
            name: value
            for name, value in event.items()
            if name not in looked_up and (own_fields or name in _HISTORY or name == "fullDocument")
        }


def _after_last(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """The number of stages up to the last one that chooses events."""
    return max((index + 1 for index, stage in enumerate(pipeline) if _SELECTING & set(stage)), default=0)


def _differing(here: Any, there: Any, above: str = "") -> list[str]:
    """The paths of the fields that differ, two levels deep."""
    found = []
    for name in dict.fromkeys([*here, *there]):
        one, other = here.get(name), there.get(name)
        if (name in here) == (name in there) and text_of(one) == text_of(other):
            continue
        if not above and isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{name}.")
        else:
            found.append(f"{above}{name}")
    return found


def _in_one_way(value: dict[str, Any]) -> Any:
    date = value.get("$date")
    if isinstance(date, str) and "." in date and len(value) == 1:
        return {"$date": date.rstrip("Z").rstrip("0").rstrip(".") + "Z"}
    return value["$dbPointer"] if len(value) == 1 and "$dbPointer" in value else value
