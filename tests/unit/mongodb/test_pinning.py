"""A stream's commands stay on one mongos, and move on when it is gone."""

from pymongo.server_description import ServerDescription

from app.mongodb.pinning import Pin, pinned, prefer_pinned


class Mongos(ServerDescription):
    @property
    def server_type_name(self) -> str:
        return "Mongos"


MANY: list[ServerDescription] = [Mongos((f"mongos{n}", 27017)) for n in range(8)]


def test_without_a_pin_every_server_may_be_chosen() -> None:
    assert prefer_pinned(MANY) == MANY


def test_a_pinned_stream_keeps_the_first_mongos_and_takes_any_other_once_it_is_gone() -> None:
    with pinned(Pin()):
        (chosen,) = prefer_pinned(MANY)
        assert all(prefer_pinned(MANY) == [chosen] for _ in range(20))
        rest = [one for one in MANY if one is not chosen]
        assert prefer_pinned(rest) == rest
    assert prefer_pinned(MANY) == MANY


def test_two_streams_keep_a_mongos_each() -> None:
    pins = [Pin() for _ in range(40)]
    chosen = []
    for pin in pins:
        with pinned(pin):
            chosen.append(prefer_pinned(MANY))
    for pin, one in zip(pins, chosen, strict=True):
        with pinned(pin):
            assert prefer_pinned(MANY) == one
    assert len({one.address for (one,) in chosen}) > 1


def test_a_replica_set_needs_no_pin() -> None:
    members = [ServerDescription((f"member{n}", 27017)) for n in range(3)]
    with pinned(Pin()):
        assert prefer_pinned(members) == members
