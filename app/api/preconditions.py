"""`ETag` and `If-Match` (RFC 9110): a change that counts only as long as nobody else has changed the watcher.

The tag is the revision of the stored watcher: its definition, whether it is paused, and whether it was moved. Its
status does not count.
"""

import re
from typing import Annotated, Any

from fastapi import Depends, Header

from app.control.registry import Revisions
from app.domain.status import WatcherView

ETAG: dict[str, Any] = {
    "ETag": {
        "description": "The revision of what is stored about the watcher, for `If-Match`.",
        "schema": {"type": "string", "examples": ['"7"']},
    }
}
_TAG = re.compile(r'(?:W/)?"[^"]*"')
_OWN = re.compile(r'"([0-9]{1,18})"')
"""A weak tag does not match: `If-Match` compares strongly."""

_IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='The `ETag` of the watcher as you read it, such as `"7"` (`*`: any). If it has another one by now, '
        "the answer is 412 and nothing is changed.",
    ),
]


async def expected(if_match: _IfMatch = None) -> Revisions | None:
    """The revisions that the request expects. A tag that is not a revision matches nothing."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return "any"
    return frozenset(int(own[1]) for tag in _TAG.findall(if_match) if (own := _OWN.fullmatch(tag)))


Expected = Annotated[Revisions | None, Depends(expected)]


def tagged(view: WatcherView) -> dict[str, str]:
    """The header that names a watcher's revision."""
    return {"ETag": f'"{view.stored.revision}"'}


def tagged_answers(status: int) -> dict[int | str, dict[str, Any]]:
    """The header in the `responses` of a call, for OpenAPI."""
    return {status: {"headers": ETAG}}
