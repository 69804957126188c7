"""The comparison behind `changewire verify` against an oracle that holds everything and looks everything up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.verify import comparison
from app.verify.comparison import BETWEEN, GAP, LETTERS, OLDER, REMOVED, UNDECIDABLE, Bounds, Comparison, Event
from app.verify.findings import KINDS, Findings
from app.verify.rows import Reading, Rows


def token(moment: int) -> str:
    return f"82{moment:016X}"


@dataclass
class FakeMessage:
    """A message as far as the comparison looks at it; `moment` None: foreign."""

    sequence: int
    moment: int | None
    epoch: int = 0
    altered: bool = False
    operation: str = "insert"
    gap: str | None = None
    replayed: bool = False
    position: str = ""
    row: None = None

    @property
    def token(self) -> str | None:
        return None if self.moment is None else token(self.moment)


@dataclass
class FakeHistory:
    """A history in memory; what is before `begin` the oplog has no more."""

    moments: Sequence[int]
    begin: int = 0
    operation: str = "insert"
    opened: int = 0
    _rest: list[int] = field(default_factory=list)

    async def open(self, at: str) -> str:
        self.opened += 1
        at = max(at, token(self.begin))
        self._rest = [moment for moment in self.moments if token(moment) >= at]
        return at

    async def peek(self) -> Event | None:
        return Event(token(self._rest[0]), self.operation, {}) if self._rest else None

    def take(self) -> None:
        del self._rest[0]

    def broke(self, before: str) -> bool:
        return False


def compare(
    history: FakeHistory, messages: Sequence[FakeMessage], bounds: Bounds | None = None, first: int = 1
) -> Findings:
    """Run a comparison; `first` is the stream's first sequence by the end of it."""

    async def stream() -> AsyncIterator[FakeMessage]:
        for message in messages:
            yield message

    async def difference(event: Event, message: FakeMessage) -> str | None:
        return "differs" if message.altered else None

    async def removed(sequence: int) -> bool:
        return first > max(sequence, 1)

    async def whole(message: FakeMessage) -> dict[str, Any]:
        return {}

    rows = Rows(Reading(lambda *names: "", whole, removed))
    comparison = Comparison(history, bounds or Bounds(), difference=difference, removed=removed, rows=rows)
    return asyncio.run(comparison.run(stream()))


def numbered(*moments: int | None, epoch: int = 0, first: int = 1) -> list[FakeMessage]:
    return [FakeMessage(first + index, moment, epoch) for index, moment in enumerate(moments)]


def totals(findings: Findings) -> dict[str, int]:
    """The faults, by kind; kinds without any are left out. What is told one by one has to be as many."""
    assert all(len(found.first) == found.total for found in findings.faults.values())
    return {kind: found.total for kind, found in findings.faults.items() if found.total}


@dataclass
class _Seen:
    epoch: int
    low: int
    high: int
    tokens: set[int]


def oracle(history: Sequence[int], messages: Sequence[FakeMessage]) -> dict[str, int]:
    """The faults by their definitions, with everything in memory."""
    known, faults, runs = set(history), Counter[str](), list[_Seen]()
    for message in messages:
        moment = message.moment
        if moment is None:
            continue
        if not runs or message.epoch > runs[-1].epoch:
            runs.append(_Seen(message.epoch, moment, -1, set()))
        run = runs[-1]
        if message.epoch < run.epoch:
            faults["reordered"] += 1
        elif moment > run.high:
            faults["unknown"] += moment not in known
            faults["altered"] += moment in known and message.altered
            run.high = moment
        else:
            late = moment < run.low or (moment in known and moment not in run.tokens)
            faults["reordered" if late else "doubled"] += 1
        if message.epoch == run.epoch:
            run.tokens.add(moment)
    for index, run in enumerate(runs):
        again = runs[index + 1 :]
        faults["lost"] += sum(
            1
            for moment in known
            if run.low <= moment <= run.high
            and moment not in run.tokens
            and not any(later.low <= moment <= later.high for later in again)
        )
    return {kind: faults[kind] for kind in KINDS if faults[kind]}


MOMENTS = st.integers(min_value=0, max_value=12)
HISTORIES = st.sets(MOMENTS, max_size=13).map(sorted)


@st.composite
def streams(draw: st.DrawFn) -> list[FakeMessage]:
    """Streams as they should be and as they should not: runs of epochs, then broken here and there."""
    found: list[FakeMessage] = []
    for epoch in range(draw(st.integers(1, 3))):
        start = draw(MOMENTS)
        for moment in range(start, draw(st.integers(start, 12)) + 1):
            found.append(FakeMessage(0, moment, epoch))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(found) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "alter", "foreign", "epoch"])):
            case "drop" if len(found) > 1:
                del found[at]
            case "double":
                found.insert(draw(st.integers(0, len(found))), FakeMessage(0, found[at].moment, found[at].epoch))
            case "swap":
                other = draw(st.integers(0, len(found) - 1))
                found[at], found[other] = found[other], found[at]
            case "alter":
                found[at].altered = True
            case "foreign":
                found.insert(at, FakeMessage(0, None))
            case "epoch":
                found[at].epoch = draw(st.integers(0, 3))
    for index, message in enumerate(found):
        message.sequence = index + 1
    return found


@given(HISTORIES, streams())
@example([1, 2, 3], numbered(1, 3))
@example([1, 2, 3], numbered(1, 3, 2))
@example([1, 2, 3], numbered(1, 2, 3, 2))
@example([1, 2, 3], [*numbered(1, 3), *numbered(1, 2, 3, epoch=1, first=3)])
@example([1, 3], numbered(1, 2, 3))
def test_finds_what_an_oracle_finds(history: list[int], messages: list[FakeMessage]) -> None:
    assert totals(compare(FakeHistory(history), messages)) == oracle(history, messages)


@given(HISTORIES.filter(bool), st.data())
def test_a_right_stream_is_right_and_the_rest_is_waiting(history: list[int], data: st.DataObject) -> None:
    messages: list[FakeMessage] = []
    reached = 0
    for epoch in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, min(reached if epoch else len(history), len(history) - 1)))
        reached = data.draw(st.integers(begin + 1, len(history)))
        messages += numbered(*history[begin:reached], epoch=epoch, first=len(messages) + 1)
    findings = compare(FakeHistory(history), messages)
    assert totals(findings) == {}
    assert (findings.compared, findings.waiting) == (len(messages), len(history) - reached)
    assert findings.skipped == {}


@given(HISTORIES.filter(bool), MOMENTS, st.data())
def test_what_is_older_than_the_oplog_is_not_judged(history: list[int], begin: int, data: st.DataObject) -> None:
    dropped = data.draw(st.sets(st.sampled_from(history), max_size=2))
    messages = numbered(*(moment for moment in history if moment not in dropped))
    left = [moment for moment in history if moment >= begin]
    for known in (True, False):  # whether the floor is known beforehand, or shows when the history is opened
        floor = token(begin) if known else ""
        findings = compare(FakeHistory(left, begin), messages, Bounds(floor=floor))
        inside = [message for message in messages if message.moment is not None and message.moment >= begin]
        assert (findings.compared, findings.skipped.get(OLDER, 0)) == (len(inside), len(messages) - len(inside))
        # What is missing behind the last message waits; what is missing before the first was never there.
        low, high = (messages[0].moment, messages[-1].moment) if messages else (0, 0)
        assert low is not None
        assert high is not None
        lost = [moment for moment in dropped if moment >= begin and low < moment < high]
        assert totals(findings) == ({"lost": len(lost)} if lost else {})


def test_what_is_before_the_position_is_lost_and_what_is_behind_it_waits() -> None:
    findings = compare(FakeHistory([1, 2, 3, 4]), numbered(1), Bounds(position=token(3)))
    assert (totals(findings), findings.waiting) == ({"lost": 2}, 1)


def test_a_position_of_a_later_epoch_proves_nothing_about_this_one() -> None:
    for position, waiting, between in ((3, 1, 2), (0, 4, 0)):
        bounds = Bounds(position=token(position), position_epoch=1)
        findings = compare(FakeHistory([1, 2, 3, 4]), numbered(1), bounds)
        assert (totals(findings), findings.waiting, findings.skipped.get(BETWEEN, 0)) == ({}, waiting, between)


def test_an_epoch_that_never_was_does_not_hide_a_double() -> None:
    messages = [*numbered(1, 2, 3), FakeMessage(4, 2, 9), FakeMessage(5, 4, 0)]
    findings = compare(FakeHistory([1, 2, 3, 4]), messages, Bounds(last_epoch=0))
    assert totals(findings) == {"doubled": 1}


def test_an_empty_stream_lacks_everything_where_it_is_known_to_cover_it() -> None:
    covered = Bounds(floor=token(2), covered=True, position=token(3))
    findings = compare(FakeHistory([1, 2, 3, 4]), [], covered)
    assert (totals(findings), findings.waiting) == ({"lost": 2}, 1)
    findings = compare(FakeHistory([1, 2, 3, 4]), [], Bounds(position=token(3)))
    assert (totals(findings), findings.waiting) == ({}, 1)
    assert totals(compare(FakeHistory([1, 2]), [])) == {}


def test_what_the_stream_removes_by_itself_is_not_called_lost() -> None:
    for first, bounds in ((2, Bounds()), (1, Bounds(removes=True))):
        findings = compare(FakeHistory([1, 2, 3]), numbered(1, 3), bounds, first=first)
        assert (totals(findings), findings.skipped) == ({}, {REMOVED: 1})


def test_what_depends_on_a_document_of_then_is_not_called_lost_or_unknown() -> None:
    bounds = Bounds(undecidable={"update"})
    findings = compare(FakeHistory([1, 2, 3], operation="update"), numbered(1, 3), bounds)
    assert (totals(findings), findings.skipped) == ({}, {UNDECIDABLE: 1})
    message = FakeMessage(2, 2, operation="update")
    findings = compare(FakeHistory([1, 3]), [*numbered(1), message, FakeMessage(3, 3)], bounds)
    assert (totals(findings), findings.skipped) == ({}, {UNDECIDABLE: 1})


@given(st.sets(MOMENTS, min_size=4).map(sorted), st.data())
def test_what_lies_in_a_marked_gap_is_not_lost_and_what_lies_before_it_is(
    history: list[int], data: st.DataObject
) -> None:
    reached, resumed = sorted(data.draw(st.lists(MOMENTS, min_size=2, max_size=2, unique=True)))
    marker = FakeMessage(0, resumed, operation="gap", gap=token(reached))
    history = [moment for moment in history if moment != resumed]  # a mark of a moment, which is no change
    before, after = [m for m in history if m <= reached], [m for m in history if m > resumed]
    there = data.draw(st.sets(st.sampled_from(before)).map(sorted)) if before else []
    behind = data.draw(st.sets(st.sampled_from(after)).map(sorted)) if after else []
    messages = [*numbered(*there), marker, *numbered(*behind)]
    findings = compare(FakeHistory(history), messages, Bounds(covered=True, position=token(20)))
    lost = [*(set(before) - set(there)), *(set(after) - set(behind))]
    assert sorted(finding.token or "" for finding in findings.faults["lost"].first) == sorted(map(token, lost))
    assert totals(findings) == ({"lost": len(lost)} if lost else {})
    within = len([moment for moment in history if reached < moment < resumed])
    assert findings.skipped == ({GAP: within} if within else {})
    assert len(findings.notes) == 1


def test_a_marker_that_is_there_twice_is_a_double() -> None:
    marker = FakeMessage(2, 5, operation="gap", gap=token(1))
    findings = compare(FakeHistory([1, 3, 7]), [*numbered(1), marker, marker, *numbered(7, first=4)])
    assert totals(findings) == {"doubled": 1}


def test_the_history_is_read_once_where_no_epoch_goes_back() -> None:
    history = FakeHistory([1, 2, 3, 4])
    assert totals(compare(history, [*numbered(1, 2), *numbered(3, 4, epoch=1, first=3)])) == {}
    assert history.opened == 1


def test_more_missing_changes_than_are_remembered_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MISSING_REMEMBERED", 2)
    findings = compare(FakeHistory([1, 2, 3, 4, 5, 6]), numbered(1, 6))
    assert (findings.faults["lost"].total, len(findings.faults["lost"].first)) == (4, 2)


def replay(sequence: int, moment: int, position: int, epoch: int = 0, *, altered: bool = False) -> FakeMessage:
    return FakeMessage(sequence, moment, epoch, altered=altered, replayed=True, position=token(position))


@given(st.sets(MOMENTS, min_size=3).map(sorted), st.data())
def test_a_dead_letter_is_not_lost_and_its_replay_is_no_double(history: list[int], data: st.DataObject) -> None:
    aside = data.draw(st.sets(st.sampled_from(history[:-1])).map(sorted))
    again = data.draw(st.sets(st.sampled_from(aside)).map(sorted)) if aside else []
    there = [moment for moment in history if moment not in aside]
    end = data.draw(st.integers(0, len(there)))
    messages = numbered(*there[:end])
    position = there[end - 1] if end else 0
    replayed = [moment for moment in again if moment <= position]
    messages += [replay(end + index, moment, position) for index, moment in enumerate(replayed, 1)]
    messages += numbered(*there[end:], first=end + len(replayed) + 1)
    letters = {token(moment) for moment in aside if moment not in replayed}
    findings = compare(FakeHistory(history), messages, Bounds(covered=True, letters=letters))
    assert totals(findings) == {}
    assert findings.compared == len(there) + len(replayed)
    assert findings.skipped == ({LETTERS: len(letters)} if letters else {})
    assert len(findings.notes) == len(replayed)


def test_what_is_missing_before_a_replays_position_is_lost() -> None:
    findings = compare(FakeHistory([1, 2, 3, 4, 6]), [*numbered(1), replay(2, 2, 5), *numbered(6, first=3)])
    assert sorted(one.token or "" for one in findings.faults["lost"].first) == [token(3), token(4)]


def test_a_replay_beside_its_change_or_another_replay_is_a_double() -> None:
    for messages in (
        [*numbered(1, 2, 3), replay(4, 2, 3)],
        [*numbered(1, 3), replay(3, 2, 3), replay(4, 2, 3)],
    ):
        assert totals(compare(FakeHistory([1, 2, 3]), messages)) == {"doubled": 1}
    assert totals(compare(FakeHistory([1, 2, 3]), [*numbered(1, 3), replay(3, 2, 3, altered=True)])) == {"altered": 1}
    late = [*numbered(1, 3), *numbered(1, 2, 3, epoch=1, first=3), replay(6, 2, 3)]
    assert totals(compare(FakeHistory([1, 2, 3]), late)) == {"reordered": 1}


def test_a_replay_of_what_cannot_be_compared_is_passed_over() -> None:
    findings = compare(FakeHistory([1, 2, 3]), [replay(1, 1, 2), *numbered(3, first=2)])
    assert (totals(findings), findings.skipped) == ({}, {OLDER: 1})
    bounds = Bounds(undecidable={"update"})
    findings = compare(FakeHistory([1, 2, 3], operation="update"), [*numbered(1, 3), replay(3, 2, 3)], bounds)
    assert totals(findings) == {}
