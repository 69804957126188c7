"""A position as a document: what comes back of it, which document counts, and which position may follow which."""

from itertools import product
from typing import Any

import pytest
from bson.timestamp import Timestamp

from app.domain.position import Checkpoint, OwnMessage
from app.domain.tokens import MessageId, RowPlace
from app.domain.watcher import Route
from app.mongodb.checkpoint_document import as_checkpoint, as_fields, is_of_earlier_epoch, may_follow, newest_of
from tests.fakes import BEGIN, event_token, mark_token


def at(moment: int, epoch: int | None = 0, **more: Any) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=epoch, **more)


def stored(moment: int, epoch: int | None = 0) -> dict[str, Any]:
    """A document; without an epoch it is mongodb-nats-connector's."""
    return {"value": event_token(moment)} if epoch is None else as_fields(at(moment, epoch))


def test_a_position_comes_back_with_all_that_it_tells() -> None:
    checkpoint = at(
        7, 2, sequence=5, stream_created="x", scope="rs0/shop.orders", watcher="w", updated_at=1e9, counted=False,
        route=Route("ORDERS", "ORDERS.{operation}", "all"), native=True,
        own=OwnMessage(4, MessageId(event_token(6), 2)),
    )  # fmt: skip
    fields = as_fields(checkpoint)
    assert fields["clusterTime"] == Timestamp(BEGIN + 7, 1)
    assert as_checkpoint({**fields, "home": "here"}, "here") == checkpoint


def test_a_document_tells_whether_it_was_written_where_it_was_found() -> None:
    fields = as_fields(at(1))
    assert as_checkpoint({**fields, "home": "here"}, "here").native is True
    assert as_checkpoint({**fields, "home": "there"}, "here").native is False
    assert as_checkpoint(fields, "here").native is None


def test_mongodb_nats_connectors_document_is_a_position_without_an_epoch() -> None:
    found = as_checkpoint({"value": event_token(3)}, "here")
    assert found == Checkpoint(event_token(3))
    assert found.epoch is None


@pytest.mark.parametrize(("moment", "epoch", "before"), list(product((4, 5, 6), (1, 2, 3), (None, 1, 2, 3))))
def test_a_position_follows_an_earlier_epoch_or_a_lesser_token_of_its_own(
    moment: int, epoch: int, before: int | None
) -> None:
    follows = may_follow(at(moment, epoch), stored(5, before))
    if before is None or before == epoch:
        assert follows is (moment > 5)
    else:
        assert follows is (before < epoch)
    assert is_of_earlier_epoch(at(moment, epoch), stored(5, before)) is (before is None or before < epoch)


@pytest.mark.parametrize(
    ("newest_first", "counts"),
    [
        ([], None),
        ([(3, 0), (9, 0), (1, 0)], (9, 0)),  # a slower writer inserted last
        ([(9, 0), (2, 1), (8, 0)], (2, 1)),
        ([(4, None), (9, 0)], (4, None)),  # mongodb-nats-connector was the last to write
        ([(5, 0), (4, None), (9, 0)], (5, 0)),
    ],
)
def test_of_a_capped_collections_last_documents_one_counts(
    newest_first: list[tuple[int, int | None]], counts: tuple[int, int | None] | None
) -> None:
    found = newest_of([stored(*each) for each in newest_first])
    assert found == (None if counts is None else stored(*counts))


ROW = str(RowPlace(mark_token(5), 0, "0000000003e8", 1, 2))


def test_a_row_of_a_snapshot_is_kept_beside_the_token_that_changes_are_read_on_after() -> None:
    """So mongodb-nats-connector, and a version that knows no rows, go on at the moment that the row stands at."""
    fields = as_fields(Checkpoint(ROW, epoch=0))
    assert (fields["value"], fields["row"]) == (mark_token(5), ROW)
    assert as_checkpoint(fields, None).token == ROW
    assert as_fields(Checkpoint(mark_token(5), epoch=0))["row"] is None


@pytest.mark.parametrize("value", [event_token(5), mark_token(6), event_token(3)])
def test_a_row_beside_another_token_is_what_a_program_left_that_knows_no_rows(value: str) -> None:
    document = {**as_fields(Checkpoint(ROW, epoch=0)), "value": value}
    assert as_checkpoint(document, None).token == value
    assert may_follow(Checkpoint(ROW, epoch=0), document) == (value < ROW)


def test_a_row_follows_its_mark_and_is_followed_by_the_next_row_and_the_next_change() -> None:
    later = str(RowPlace(mark_token(5), 0, "0000000003e8", 1, 3))
    order = [mark_token(5), ROW, later, event_token(5), mark_token(6)]
    for before, after in product(order, order):
        document = as_fields(Checkpoint(before, epoch=0))
        assert may_follow(Checkpoint(after, epoch=0), document) == (order.index(before) < order.index(after))
