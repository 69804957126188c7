"""One table from errors to answers: each class of the tree has its status, title and type. The domain names none."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.api.problems import INTERNAL, KINDS, kind_of
from app.domain import errors
from app.domain.errors import ChangewireError, RegistryError
from tests.unit.api.calls import SECRET, application, client_of, problem
from tests.unit.api.fake_registry import FakeRegistry

INTERNAL_ERROR = (500, "Internal Server Error", "urn:changewire:internal")
UNAVAILABLE = (503, "Unavailable", "urn:changewire:unavailable")
ANSWERS = {
    "ChangewireError": INTERNAL_ERROR,
    "TransientError": UNAVAILABLE,
    "SourceUnavailable": UNAVAILABLE,
    "MomentGone": UNAVAILABLE,
    "ReadTooLong": UNAVAILABLE,
    "SinkUnavailable": UNAVAILABLE,
    "StreamRefused": UNAVAILABLE,
    "StreamFull": UNAVAILABLE,
    "StoreUnavailable": UNAVAILABLE,
    "PermanentError": INTERNAL_ERROR,
    "HistoryLost": INTERNAL_ERROR,
    "TokenRefused": INTERNAL_ERROR,
    "ScopeMismatch": INTERNAL_ERROR,
    "SourceRefused": INTERNAL_ERROR,
    "NotAuthorised": INTERNAL_ERROR,
    "StateOutOfReach": INTERNAL_ERROR,
    "StreamUnsuitable": INTERNAL_ERROR,
    "PositionUndecidable": INTERNAL_ERROR,
    "MessageTooLarge": INTERNAL_ERROR,
    "EventNotEncodable": INTERNAL_ERROR,
    "EventTooLarge": INTERNAL_ERROR,
    "CollectionMoved": INTERNAL_ERROR,
    "OutcomeUnknown": INTERNAL_ERROR,
    "FenceLost": INTERNAL_ERROR,
    "SeenBefore": INTERNAL_ERROR,
    "Stale": INTERNAL_ERROR,
    "Fenced": INTERNAL_ERROR,
    "RegistryError": INTERNAL_ERROR,
    "Invalid": (422, "Invalid", "urn:changewire:invalid"),
    "NotFound": (404, "Not found", "urn:changewire:not-found"),
    "Conflict": (409, "Conflict", "urn:changewire:conflict"),
    "Outdated": (412, "Outdated", "urn:changewire:outdated"),
    "Elsewhere": (503, "Elsewhere", "urn:changewire:elsewhere"),
    "Unavailable": UNAVAILABLE,
    "InstanceSilent": UNAVAILABLE,
}
"""What each class of the tree answers: a new class has to say so here."""


def tree(root: type[ChangewireError] = ChangewireError) -> Iterator[type[ChangewireError]]:
    yield root
    for below in root.__subclasses__():
        yield from tree(below)


@pytest.mark.parametrize("error", list(tree()))
async def test_each_error_is_answered_as_its_kind(error: type[ChangewireError]) -> None:
    registry = FakeRegistry()
    registry.failure = error(f"mongodb://u:{SECRET}@h says no")
    with capture_logs() as logged:
        async with client_of(application(registry)) as client:
            answer = await client.put("/watchers/orders/pause")
    status, title, type_ = ANSWERS[error.__name__]
    body = problem(answer, status)
    assert (body["title"], body["type"]) == (title, type_)
    assert "says no" in body["detail"]
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("request_failed" in [entry["event"] for entry in logged]) == (status == 500)


def test_every_branch_of_the_tree_has_a_row_of_its_own() -> None:
    branches = {*ChangewireError.__subclasses__(), *RegistryError.__subclasses__()} - {RegistryError}
    assert set(KINDS) == branches
    assert kind_of(KeyError) is INTERNAL


def test_the_catalogue_lists_every_class_and_the_domain_knows_no_status() -> None:
    catalogue = errors.__doc__ or ""
    listed = re.findall(r"^    (?:[│├└─ ]*)(\w+)", catalogue, re.MULTILINE)
    assert listed == [each.__name__ for each in tree()], "the tree, in the order of the classes"
    assert not re.search(r"\b[45]\d\d\b", inspect.getsource(errors)), "a status"
