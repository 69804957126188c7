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
    said = [(each["component"], each["up"], each["log_level"]) for each in logs if each["event"] == "component_changed"]
    assert said == [("MongoDB", True, "info"), ("NATS", False, "warning"), ("NATS", True, "info")]


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
    said = [each["reason"] for each in logs if each["event"] == "component_changed" and not each["up"]]
    assert said == ["no answer"]
