"""What is known of servers: an outage is said once, whenever it begins, and its errors are not kept in memory."""

import gc
import time
import weakref

import pytest
from structlog.testing import capture_logs

from app.control.server_probe import ALL_GENERATIONS_SECONDS, ServerProbe
from app.domain.errors import SinkUnavailable
from tests.unit.deployment import Fakes


async def test_an_outage_is_a_warning_once_and_its_end_is_said() -> None:
    fakes = Fakes()
    probe = ServerProbe(fakes.mongo, fakes.nats)
    fakes.nats.up = False
    with capture_logs() as logs:
        for _ in range(3):
            await probe.look()
        fakes.nats.up = True
        await probe.look()
    said = [(each["event"], each["component"], each["log_level"]) for each in logs]
    assert said == [("server_unreachable", "NATS", "warning"), ("server_reachable", "NATS", "info")]
    assert logs[1]["after_seconds"] >= 0


async def test_an_error_of_changewire_itself_is_said_once_with_its_traceback_and_counts_as_an_outage() -> None:
    fakes = Fakes()
    probe = ServerProbe(fakes.mongo, fakes.nats)

    async def ping() -> None:
        raise ZeroDivisionError

    fakes.nats.ping = ping  # type: ignore[method-assign]  # the fake has no errors of our own
    with capture_logs() as logs:
        for _ in range(3):
            await probe.look()
    assert [each["event"] for each in logs] == ["probe_failed", "server_unreachable"]
    assert isinstance(logs[0]["exc_info"], ZeroDivisionError)


async def test_a_reason_that_changes_with_every_look_is_not_said_with_each() -> None:
    fakes = Fakes()
    probe = ServerProbe(fakes.mongo, fakes.nats)
    reasons = iter(("no answer", "JetStream is not enabled", "no answer"))

    async def ping() -> None:
        raise SinkUnavailable(next(reasons))

    fakes.nats.ping = ping  # type: ignore[method-assign]  # the fake has no script of reasons
    with capture_logs() as logs:
        for _ in range(3):
            await probe.look()
    assert [(each["event"], each["reason"]) for each in logs] == [("server_unreachable", "no answer")]


class Cycle:
    """What ends with a garbage collection alone."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.parametrize("age", [0, 1, 2])
async def test_what_attempts_leave_behind_ends_while_a_server_is_down_however_old_it_has_grown(
    monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    fakes = Fakes()
    probe = ServerProbe(fakes.mongo, fakes.nats)
    fakes.nats.up = False
    await probe.look()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 20, 50)  # as `serve` has them
    try:
        left = Cycle()
        for generation in range(age):
            gc.collect(generation)
        gone = weakref.ref(left)
        del left
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + (ALL_GENERATIONS_SECONDS if age == 2 else 0))
        await probe.look()
        assert gone() is None
    finally:
        gc.set_threshold(*thresholds)
