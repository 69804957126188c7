"""With the rights that mongodb-nats-connector was given, and with exactly those that the migration page names."""

from pathlib import Path

from tests.conftest import MakeNats
from tests.integration.test_predecessor_takeover import Predecessor, as_nats_go_asks, entry, write_config
from tests.live import Live

CONNECTORS = (
    'publish: {{ allow: ["{stream}.*", "$JS.API.STREAM.CREATE.*"{more}] }}, subscribe: {{ allow: ["_INBOX.>"] }}'
)


def accounts(permissions: str) -> str:
    """A configuration with a user who may do everything, and one with these permissions."""
    return f"""
    accounts {{ A {{ jetstream: enabled, users: [
        {{ user: root, password: toor }},
        {{ user: connector, password: secret, permissions: {{ {permissions} }} }}
    ] }} }}
    """


async def served(make_nats: MakeNats, permissions: str) -> tuple[str, str]:
    """The URLs under which either reaches a server of this test's own."""
    server = await make_nats(config=accounts(permissions))
    return f"nats://root:toor@127.0.0.1:{server.port}", f"nats://connector:secret@127.0.0.1:{server.port}"


async def test_without_the_right_to_read_a_message_it_says_which_to_grant(
    make_nats: MakeNats, mongo_uri: str, unique: str, tmp_path: Path
) -> None:
    stream = f"ORDERS_{unique}".upper()
    root, connector = await served(make_nats, CONNECTORS.format(stream=stream, more=""))
    async with Live(mongo_uri, connector, unique, look_at=(mongo_uri, root)) as live:
        await live.restart(write_config(tmp_path / "c.yaml", live, entry(live)))
        reason = (await live.reaches("FAILED", f"{live.database}.{live.collection}"))["status"]["reason"]
        assert f"$JS.API.STREAM.MSG.GET.{stream}" in reason
        assert "publish permissions" in reason


async def test_with_one_right_more_than_the_connector_has_it_takes_over_and_back(
    make_nats: MakeNats, mongo_uri: str, unique: str, tmp_path: Path
) -> None:
    stream = f"ORDERS_{unique}".upper()
    more = f', "$JS.API.STREAM.MSG.GET.{stream}"'
    root, connector = await served(make_nats, CONNECTORS.format(stream=stream, more=more))
    async with Live(mongo_uri, connector, unique, look_at=(mongo_uri, root)) as live:
        config = write_config(tmp_path / "c.yaml", live, entry(live))
        watcher, predecessor = f"{live.database}.{live.collection}", Predecessor(live)
        await live.stop()
        await predecessor.run(lambda: live.insert(1, 2), die_before_token=True)
        await live.start(config)
        await live.reaches("RUNNING", watcher)
        live.insert(*range(3, 40))
        expected = [str(number) for number in range(1, 40)]
        await live.seen(*expected)
        await live.stop()
        await predecessor.run(lambda: live.insert(40))
        await live.start(config)
        live.insert(41)
        await live.seen(*expected, "40", "41")
        # A stream that is gone is not made again behind anybody's back, though to ask for it is to make it.
        await live.stop()
        assert "error" not in await live.streams.api(f"STREAM.DELETE.{stream}")
        await live.start(config)
        failed = await live.reaches("RETRYING", watcher)
        assert "does not exist" in failed["status"]["reason"]
        assert await live.streams.config(stream) is None
        # One with other settings cannot be looked at without the right to.
        answer = await live.streams.api(f"STREAM.CREATE.{stream}", as_nats_go_asks(stream) | {"max_msgs": 1000})
        assert "error" not in answer
        failed = await live.reaches("FAILED", watcher)
        assert f"$JS.API.STREAM.INFO.{stream}" in failed["status"]["reason"]
