"""The proxy harms what it is told to harm, in the way it is told, and nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.devservers.servers import HOST
from tests.faults.proxy import BATCH_BYTES, Hold, Link, Proxy
from tests.live import until

MARK = b"harm me"
ALONE = b"harm me alone"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that returns what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = b""
        self.link = Link()
        self.port = 0
        self.apart = {ALONE: Link()}
        self.proxy = Proxy(self.link, lambda: self.port, MARK, self.apart)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.got += data
            writer.write(data)
        writer.close()

    async def connect(self, first: bytes = MARK) -> Streams:
        reader, writer = await asyncio.open_connection(HOST, self.proxy.port)
        await say(writer, first)
        assert await reader.readexactly(len(first)) == first
        return reader, writer


async def say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def still(task: asyncio.Task[bytes]) -> None:
    """Assert that nothing comes, for as long as what is not harmed takes many times over."""
    done, _ = await asyncio.wait([task], timeout=0.2)
    assert not done


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    echo.port = server.sockets[0].getsockname()[1]
    await echo.proxy.listen()
    yield echo
    await echo.proxy.close()
    server.close()


async def test_stalled_bytes_arrive_once_the_link_is_healed(echo: Echo) -> None:
    reader, writer = await echo.connect()
    echo.link.stall("up")
    await say(writer, b"late")
    reading = asyncio.create_task(reader.readexactly(4))
    await still(reading)
    assert echo.got == MARK
    echo.link.heal()
    assert await reading == b"late"


async def test_one_client_alone_can_be_cut_off_also_one_that_comes_later(echo: Echo) -> None:
    reader, writer = await echo.connect(ALONE)
    echo.apart[ALONE].stall("up", "down")
    await say(writer, b"late")
    reading = asyncio.create_task(reader.readexactly(4))
    late_reader, late_writer = await asyncio.open_connection(HOST, echo.proxy.port)
    await say(late_writer, ALONE)
    late = asyncio.create_task(late_reader.readexactly(len(ALONE)))
    other_reader, other_writer = await echo.connect()
    await say(other_writer, b"free")
    assert await other_reader.readexactly(4) == b"free"
    await still(reading)
    await still(late)
    echo.apart[ALONE].heal()
    assert await reading == b"late"
    assert await late == ALONE


async def test_one_direction_alone_can_be_stalled(echo: Echo) -> None:
    reader, writer = await echo.connect()
    echo.link.stall("down")
    await say(writer, b"heard")
    reading = asyncio.create_task(reader.readexactly(5))
    await until(lambda: echo.got == MARK + b"heard")
    await still(reading)
    echo.link.heal()
    assert await reading == b"heard"


async def test_connections_without_the_mark_are_spared(echo: Echo) -> None:
    reader, writer = await echo.connect(b"somebody else")
    echo.link.stall("up", "down")
    await say(writer, b"through")
    assert await reader.readexactly(7) == b"through"


@pytest.mark.parametrize(("part", "arrives"), [(0.5, BATCH_BYTES // 2), (1.0, BATCH_BYTES)])
async def test_a_batch_is_torn_by_a_reset_and_a_small_write_is_not(echo: Echo, part: float, arrives: int) -> None:
    reader, writer = await echo.connect()
    echo.link.tear, echo.link.tears = ("up", part), 1
    await say(writer, b"small")
    assert await reader.readexactly(5) == b"small"
    await say(writer, b"x" * BATCH_BYTES)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(BATCH_BYTES + 1)
    assert echo.link.tears == 0
    await until(lambda: len(echo.got) == len(MARK) + 5 + arrives)


async def test_a_connection_is_held_between_two_halves_and_goes_on(echo: Echo) -> None:
    reader, writer = await echo.connect()
    hold = echo.link.hold = Hold(re.compile(b"batch"), after=1)
    await say(writer, b"batch 1!")
    assert await reader.readexactly(8) == b"batch 1!"
    await say(writer, b"batch 2!")
    await hold.held.wait()
    assert await reader.readexactly(4) == b"batc"
    reading = asyncio.create_task(reader.readexactly(4))
    await still(reading)
    hold.let_go()
    assert await reading == b"h 2!"
    await say(writer, b"batch 3!")  # it holds once
    assert await reader.readexactly(8) == b"batch 3!"


async def test_a_held_connection_is_reset_in_the_middle(echo: Echo) -> None:
    reader, writer = await echo.connect()
    hold = echo.link.hold = Hold(re.compile(b"batch"))
    await say(writer, b"batch!")
    await hold.held.wait()
    hold.reset = True
    hold.let_go()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(6)
    await until(lambda: echo.got == MARK + b"bat")


async def test_a_delay_takes_its_time_and_keeps_the_order(echo: Echo) -> None:
    reader, writer = await echo.connect()
    echo.link.delay = 0.05
    begin = asyncio.get_running_loop().time()
    for each in (b"1", b"2", b"3"):
        await say(writer, each)
    assert await reader.readexactly(3) == b"123"
    assert asyncio.get_running_loop().time() - begin >= 2 * echo.link.delay


async def test_it_refuses_as_a_server_that_is_down(echo: Echo) -> None:
    echo.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, echo.proxy.port)
    await echo.proxy.listen()
    await echo.connect()
