"""What the tests of one instance's share work with."""

import pytest

from tests.unit.control.shares import Deployment


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look reports, and nothing takes long."""
    for name, seconds in (
        ("LOOK_SECONDS", 0.005),
        ("ALONE_SECONDS", 0.005),
        ("EXPECTED_SECONDS", 0.005),
        ("BEAT_SECONDS", 0.0),
        ("UNFIT_SECONDS", 0.0),
    ):
        monkeypatch.setattr(f"app.control.share.{name}", seconds)
    for name in ("GATHER_SECONDS", "AGAIN_SECONDS", "REFILLED_SECONDS"):
        monkeypatch.setattr(f"app.control.owners_record.{name}", 0.0)


@pytest.fixture
def on() -> Deployment:
    return Deployment()
