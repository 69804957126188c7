"""How the limits that a server does not tell are found out."""

from app.domain.errors import SinkUnavailable
from app.jetstream.limits import CONTROL_LINE, Kind, Limits

MEBIBYTE = 1024 * 1024


class Server:
    """Takes so many bytes, and counts the trials; `broken`: it takes no further connections."""

    def __init__(self, payload: int = MEBIBYTE, line: int = CONTROL_LINE) -> None:
        self.takes: dict[Kind, int] = {"payload": payload, "line": line}
        self.trials = 0
        self.broken = False

    async def fits(self, kind: Kind, size: int) -> bool:
        self.trials += 1
        if self.broken:
            raise SinkUnavailable("maximum connections exceeded")
        return size <= self.takes[kind]


async def test_without_a_violation_nothing_is_tried() -> None:
    server, limits = Server(), Limits()
    limits.lost("the NATS server has been silent for 6 s")
    await limits.meet(2 * MEBIBYTE, server.fits)
    assert (limits.max_payload, limits.max_control_line, server.trials) == (2 * MEBIBYTE, CONTROL_LINE, 0)


async def test_a_violation_that_the_server_now_explains_needs_no_trial() -> None:
    server, limits = Server(payload=1000), Limits()
    limits.lost("'maximum payload violation'")
    await limits.meet(1000, server.fits)
    assert (limits.max_payload, server.trials) == (1000, 0)


async def test_a_limit_is_found_once_and_looked_at_again_with_each_connection() -> None:
    server, limits = Server(payload=65_536, line=1024), Limits()
    limits.lost("Maximum Payload Violation")
    limits.lost("'maximum control line exceeded'")
    await limits.meet(MEBIBYTE, server.fits)
    assert 65_536 - 32 <= limits.max_payload <= 65_536
    assert 1024 - 32 <= limits.max_control_line <= 1024
    found, trials = (limits.max_payload, limits.max_control_line), server.trials
    await limits.meet(MEBIBYTE, server.fits)
    assert (limits.max_payload, limits.max_control_line) == found
    assert server.trials <= trials + 6
    server.takes["payload"] = 500_000
    await limits.meet(MEBIBYTE, server.fits)
    assert 500_000 - 32 <= limits.max_payload <= 500_000
    server.takes = {"payload": MEBIBYTE, "line": CONTROL_LINE}
    await limits.meet(MEBIBYTE, server.fits)
    assert (limits.max_payload, limits.max_control_line) == (MEBIBYTE, CONTROL_LINE)


async def test_where_nothing_can_be_tried_half_is_assumed_once_for_each_violation() -> None:
    server, limits = Server(payload=300_000), Limits()
    server.broken = True
    limits.lost("maximum payload violation")
    for _ in range(3):
        await limits.meet(MEBIBYTE, server.fits)
        assert limits.max_payload == MEBIBYTE // 2
    limits.lost("maximum payload violation")
    await limits.meet(MEBIBYTE, server.fits)
    assert limits.max_payload == MEBIBYTE // 4
    server.broken = False
    await limits.meet(MEBIBYTE, server.fits)
    assert 300_000 - 32 <= limits.max_payload <= 300_000
