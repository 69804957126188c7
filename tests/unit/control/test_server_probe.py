"""What the log says of servers: an outage once, as a warning, whether it is there from the start or comes later."""

from structlog.testing import capture_logs

from app.control.server_probe import ServerProbe
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
