"""A position that is taken to another route: what is looked at before."""

from dataclasses import replace

import pytest

from app.control.positions import Positions
from app.domain.errors import ScopeMismatch
from app.domain.position import Checkpoint
from app.domain.tokens import RowPlace, cluster_time
from app.formats.extended_json import encode
from app.pipeline.run_state import RunState
from tests.fakes import event_token, mark_token
from tests.unit.deployment import Fakes, watcher

CREATED = "2026-01-01T00:00:00Z"


async def test_a_copied_position_is_proved_before_it_is_carried_over_to_another_route() -> None:
    fakes, before = Fakes(), watcher()
    fakes.oplog.happen()
    fakes.oplog.moment += 1
    foreign = event_token(1, "B2" * 16)
    place = fakes.mongo.place(before)
    place["newest"] = Checkpoint(foreign, 0, 3, CREATED, route=before.route, native=False)
    after = replace(before, sink=replace(before.sink, stream="ELSEWHERE"))
    with pytest.raises(ScopeMismatch, match="the checkpoint"):
        await Positions(fakes.dependencies()).carry_over(after, RunState())
    assert place["newest"].token == foreign
    assert place["newest"].epoch == 0


async def test_another_deployments_message_that_hides_ours_is_found_before_a_position_is_carried_over() -> None:
    """A change of ours may be before it, whose acknowledgement and checkpoint are lost: it would be published again."""
    fakes, before = Fakes(), watcher()
    _, stored, unseen = [fakes.oplog.happen() for _ in range(3)]
    raw, foreign = fakes.oplog.events[0][1], event_token(1, "B2" * 16)
    stream = fakes.stream()
    stream.exists, stream.subjects = True, [before.space]
    for token in (stored, unseen, foreign):
        change = replace(encode(raw), token=token, id=token)
        stream.store([(before.subject("insert"), change)], stream.last_sequence, before.space)
    place = fakes.mongo.place(before)
    place["newest"] = Checkpoint(stored, 0, 1, stream.created, route=before.route)
    after = replace(before, sink=replace(before.sink, stream="ELSEWHERE"))
    with pytest.raises(ScopeMismatch, match="the message 3 of the stream ORDERS"):
        await Positions(fakes.dependencies()).carry_over(after, RunState())
    assert (place["newest"].token, place["newest"].epoch) == (stored, 0)


# A position within a snapshot's rows

ROW = str(RowPlace(mark_token(2), 3, "0123456789ab", 7, 41))


async def test_within_a_snapshots_rows_the_token_that_changes_are_read_on_after_is_shown() -> None:
    fakes, orders = Fakes(), watcher()
    fakes.mongo.place(orders)["newest"] = Checkpoint(ROW, 3, 50, CREATED, route=orders.route)
    view = await Positions(fakes.dependencies()).view(orders)
    assert (view.token, view.epoch, view.stream_sequence) == (mark_token(2), 3, 50)
    assert view.cluster_time == cluster_time(mark_token(2)).seconds


async def test_a_position_within_a_snapshots_rows_is_carried_over_to_another_route_as_a_token() -> None:
    """The rows are of the epoch before: in the next one they have no place."""
    fakes, before = Fakes(), watcher()
    fakes.oplog.moment = 5
    place = fakes.mongo.place(before)
    place["newest"] = Checkpoint(ROW, 3, 50, CREATED, route=before.route)
    after = replace(before, sink=replace(before.sink, stream="ELSEWHERE"))
    await Positions(fakes.dependencies()).carry_over(after, RunState())
    assert (place["newest"].token, place["newest"].epoch, place["newest"].route) == (mark_token(2), 4, after.route)
