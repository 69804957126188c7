"""Everything that takes seconds in the service takes milliseconds here, and little is kept for those about to join."""

import pytest

from app.mongodb.feeds import feed, group, recent, sharing
from tests.unit.mongodb.feeds.scripted import EVENT_BYTES


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (sharing, "FIRST_SECONDS", 0.002),
        (sharing, "QUIET_SECONDS", (0.002, 0.004)),
        (sharing, "AGAIN_SECONDS", 0.0),
        (group, "LINGER_SECONDS", 0.01),
        (group, "GATHER_SECONDS", 0.05),
        (group, "PAUSE_SECONDS", 0.01),
        (group, "VIEWS_SECONDS", 0.01),
        (recent, "KEPT_BYTES", 6 * EVENT_BYTES),
        (feed, "PATIENCE_SECONDS", 0.001),
        (feed, "STALLED_SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, value)
