"""An index of watchers answers as the comparison with all of them does: it names those that are in the way."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.dead_letters import letters_of
from app.domain.errors import Conflict
from app.domain.overlap import refuse_overlap
from app.domain.overlap_index import OverlapIndex
from app.domain.watcher import Sink, Source, StoredWatcher, Watcher

NAMES = [f"w{number}" for number in range(6)]
STREAMS = ["A", "B", "A-DLQ", "OBJ_A", "OBJ_A-DLQ", "A-DLQ-DLQ", "%", "a"]
TEMPLATES = [
    "{stream}.{operation}", "{stream}.{database}.{operation}", "{stream}.{collection}.{operation}", "{operation}",
    "{operation}.x", "A-DLQ.{operation}.y.z", "A-DLQ", "A.insert", "A.{operation}.{operation}", "{collection}",
    "B-DLQ.x",
]  # fmt: skip
DATABASES, COLLECTIONS = ["shop", "crm", "", "A"], ["orders", "A", "", "A.B", "a"]


@dataclass(frozen=True)
class Listed:
    """What the reference compares with: all of them, one after another."""

    index: OverlapIndex

    def near(self, watcher: Watcher) -> Sequence[Watcher]:
        return [one.watcher for one in self.index.near(watcher)]


def places(draw: st.DrawFn) -> tuple[str, str]:
    database = draw(st.sampled_from(DATABASES))
    return database, draw(st.sampled_from(COLLECTIONS)) if database else ""


@st.composite
def watchers(draw: st.DrawFn) -> StoredWatcher:
    source, checkpoint = (
        places(draw),
        (draw(st.sampled_from(["shop", "t"])), draw(st.sampled_from(["orders", "A", "b"]))),
    )
    return StoredWatcher(
        Watcher(
            draw(st.sampled_from(NAMES)),
            Source(*source),
            Sink(draw(st.sampled_from(STREAMS)), draw(st.sampled_from(TEMPLATES))),
            CheckpointPlace(*checkpoint),
        ),
        added=draw(st.integers(1, 3)),
    )


def told(watcher: Watcher, others: Sequence[Watcher] | Listed, in_file: bool) -> str | None:
    try:
        refuse_overlap(watcher, others, in_file=in_file)
    except Conflict as conflict:
        return str(conflict)
    return None


@given(st.lists(watchers(), max_size=12), st.lists(st.sampled_from(NAMES), max_size=3), watchers(), st.booleans())
def test_the_index_says_the_same_as_the_comparison_with_all(
    put: list[StoredWatcher], dropped: list[str], wanted: StoredWatcher, in_file: bool
) -> None:
    index, there = OverlapIndex(), dict[str, StoredWatcher]()
    for stored in put:
        index.put(stored)
        there[stored.name] = stored
    for name in dropped:
        index.drop(name)
        there.pop(name, None)
    in_order = sorted(there.values(), key=lambda one: (one.added, one.name))
    assert list(index) == in_order
    assert len(index) == len(there)
    everybody = [one.watcher for one in in_order]
    assert told(wanted.watcher, Listed(index), in_file) == told(wanted.watcher, everybody, in_file)


@given(st.lists(watchers(), max_size=8))
def test_an_index_whose_watchers_are_gone_holds_nothing(put: list[StoredWatcher]) -> None:
    index = OverlapIndex(put)
    for stored in put:
        index.drop(stored.name)
    assert all(index.near(stored.watcher) == [] for stored in put)


def test_watchers_that_have_nothing_in_common_are_not_near() -> None:
    def one(name: str) -> Watcher:
        return Watcher(name, Source("shop", name)).with_defaults()

    index = OverlapIndex(StoredWatcher(one(f"c{number}"), added=number) for number in range(1000))
    assert index.near(one("orders")) == []
    assert [each.name for each in index.near(one("c7"))] == ["c7"]
    letters = Watcher("x", Source("crm", "x"), Sink(letters_of("C7")), CheckpointPlace("t", "x"))
    assert [each.name for each in index.near(letters)] == ["c7"]
