"""The dead-letter stream against what real servers refuse: settings, limits, permissions, and streams made by others.

What every implementation promises is in `tests/contract/test_dead_letter_queue_contract.py`.
"""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from app.domain.dead_letters import Receipt, Unpublishable, letters_of, letters_space, name_of
from app.domain.errors import NotAuthorised, SinkUnavailable, StreamRefused, StreamUnsuitable
from app.domain.watcher import Watcher
from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
from tests.conftest import MakeNats
from tests.contract.test_dead_letter_queue_contract import letter
from tests.integration.jetstream.conftest import ConnectAccount
from tests.nats_account import Account, make_watcher

MADE_SO: dict[str, Any] = {"discard": "new", "discard_new_per_subject": True, "max_msgs_per_subject": 1}
LIMITS = """
accounts { A: { jetstream: { max_file: 100MB, max_bytes_required: true }, users: [ {user: u, password: p} ] } }
"""
DENIED = """
authorization { users: [ {user: u, password: p, permissions: { publish: { deny: ["*.*.*.event"] } }} ] }
"""


@pytest_asyncio.fixture
async def letters(nats: Account, watcher: Watcher) -> JetStreamDeadLetterQueue:
    await nats.create(watcher.sink.stream)
    return nats.account.letters(watcher)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sealed": True}, "sealed"),
        ({"no_ack": True}, "no_ack"),
        ({"retention": "interest"}, "retention"),
        ({"subjects": ["elsewhere.{}"]}, "does not take the subjects"),
        ({"discard": "old", "discard_new_per_subject": False}, "not made for dead letters"),
        ({"max_msgs_per_subject": 2}, "not made for dead letters"),
    ],
)
async def test_a_stream_that_is_not_made_for_letters_is_refused(
    nats: Account, letters: JetStreamDeadLetterQueue, watcher: Watcher, config: dict[str, Any], words: str
) -> None:
    stream = watcher.sink.stream
    sealed = {"sealed": config.pop("sealed")} if "sealed" in config else {}
    config["subjects"] = [each.format(stream) for each in config.get("subjects", [letters_space(stream)])]
    made = await nats.create(letters_of(stream), **{**MADE_SO, **config})
    if sealed:
        await nats.api.update({**made, **sealed})
    with pytest.raises(StreamRefused, match=words):
        await letters.store(letter(1), 0)
    with pytest.raises(StreamUnsuitable, match=words):
        await letters.check()


async def test_subjects_that_another_stream_takes_are_said(
    nats: Account, letters: JetStreamDeadLetterQueue, watcher: Watcher, unique: str
) -> None:
    await nats.create(f"OTHER_{unique}", subjects=[letters_space(watcher.sink.stream)])
    with pytest.raises(StreamUnsuitable, match=f"OTHER_{unique}"):
        await letters.check()
    with pytest.raises(StreamRefused, match="another stream takes"):
        await letters.store(letter(1), 0)


async def test_two_who_need_the_stream_at_once_make_it_once(
    nats: Account, letters: JetStreamDeadLetterQueue, watcher: Watcher
) -> None:
    found = await asyncio.gather(*(nats.account.letters(watcher).store(letter(1), 0) for _ in range(8)))
    assert sorted(found) == [False] * 7 + [True]
    assert await letters.count() == 1


async def test_without_the_watchers_own_stream_there_is_none_for_letters(nats: Account, watcher: Watcher) -> None:
    with pytest.raises(StreamRefused, match="does not exist"):
        await nats.account.letters(watcher).store(letter(1), 0)


async def test_an_account_that_demands_a_size_gets_the_watchers(
    make_nats: MakeNats, connect_account: ConnectAccount, stream: str
) -> None:
    account = await connect_account((await make_nats(config=LIMITS)).url, user="u", password="p")
    await account.create(stream, max_bytes=1_000_000)
    with pytest.raises(StreamRefused, match="max bytes"):
        await account.account.letters(make_watcher(stream)).store(letter(1), 0)
    assert await account.account.letters(make_watcher(stream, max_bytes=2_000_000)).store(letter(1), 0)
    assert (await account.api.info(letters_of(stream))).config["max_bytes"] == 2_000_000


async def test_an_account_that_may_not_publish_letters_is_told(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    account = await connect_account((await make_nats(config=DENIED)).url, user="u", password="p")
    await account.create(watcher.sink.stream)
    letters = account.account.letters(watcher)
    with pytest.raises(NotAuthorised, match="may not publish"):
        await letters.store(letter(1), 0)
    assert await letters.keep_receipt(Receipt(letter(1).token, 0, 0, ""))


async def test_what_may_not_be_deleted_stays_and_is_said(
    nats: Account, letters: JetStreamDeadLetterQueue, watcher: Watcher
) -> None:
    stream = watcher.sink.stream
    await nats.create(letters_of(stream), subjects=[letters_space(stream)], deny_delete=True, **MADE_SO)
    await letters.store(letter(1), 0)
    (there,) = await letters.page(0, 1)
    with pytest.raises(StreamRefused, match="delete"):
        await letters.remove(there)
    assert await letters.count() == 1


async def test_a_letter_whose_object_is_gone_is_still_listed(
    nats: Account, letters: JetStreamDeadLetterQueue, watcher: Watcher
) -> None:
    await letters.store(letter(1, 2_000_000), 0)
    (listed,) = await letters.page(0, 1)
    assert listed.object is not None
    bucket, _, name = listed.object.partition("/")
    store = await nats.connection.client().jetstream().object_store(bucket)
    await store.delete(name)
    found = await letters.get(listed.sequence)
    assert found is not None
    assert found.raw is None
    await nats.api.delete(f"OBJ_{bucket}")
    assert (await letters.get(listed.sequence)) == found
    assert await letters.remove(found)


async def test_nothing_is_certain_of_a_server_that_is_gone(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher
) -> None:
    server = await make_nats()
    account = await connect_account(server.url)
    await account.create(watcher.sink.stream)
    letters = account.account.letters(watcher)
    await letters.store(letter(1, 2_000_000), 0)
    (listed,) = await letters.page(0, 1)
    server.kill()
    for asked in (
        letters.store(letter(2), 0), letters.count(), letters.get(listed.sequence), letters.remove(listed),
        letters.page(0, 1), letters.receipt(listed.token),
    ):  # fmt: skip
        with pytest.raises(SinkUnavailable):
            await asked


@pytest.mark.parametrize(("length", "most"), [(66_000, 1024 * 1024), (1_200_000, 1024 * 1024), (6_000, 2_048)])
async def test_a_letter_fits_whatever_is_large_about_it(
    make_nats: MakeNats, connect_account: ConnectAccount, watcher: Watcher, length: int, most: int
) -> None:
    """Its token and its key are the large part; the account's messages may be small, too."""
    server = await make_nats(max_payload=most)
    account = await connect_account(server.url)
    await account.create(watcher.sink.stream)
    letters = account.account.letters(watcher)
    twins = [
        Unpublishable(
            f"82{'0' * 16}{'A' * length}{end}", "insert", "oversize", "ü" * 2000, b"event", f'"{"k" * length}"'
        )
        for end in ("1", "2")
    ]
    for one in twins:
        assert await letters.store(one, 0)
        assert not await letters.store(one, 0)
    listed = await letters.page(0, 10)
    assert len(listed) == 2
    for found, one in zip(listed, twins, strict=True):
        assert found.token in (one.token, name_of(one.token))
        assert found.key is None
        whole = await letters.get(found.sequence)
        assert whole is not None
        assert whole.raw == b"event"
    assert account.connection.client().is_connected
