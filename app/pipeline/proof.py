"""Proving a position before it is believed: what `domain/evidence.py` asks for is looked up in MongoDB's history.

One look costs mongod a millisecond or two. It is needed where a position comes from the stream's end and no change that
waits has its token: after a crash, after a lost race.
"""

import structlog

from app.domain.dead_letters import name_of
from app.domain.errors import HistoryLost
from app.domain.evidence import Claim, judge
from app.pipeline.run_state import RunState
from app.ports import ChangeSource

log = structlog.get_logger(__name__)


class Proof:
    """One watcher's looks."""

    def __init__(self, source: ChangeSource, run_state: RunState) -> None:
        self._source = source
        self._run_state = run_state

    async def of(self, claim: Claim | None) -> None:
        """Return once a claim is proved. Raises ScopeMismatch where it is another deployment's, SourceUnavailable while
        that cannot be told, and what `ChangeSource.has_event` raises: HistoryLost where the oplog does not reach back.
        """
        if claim is None:
            return
        try:
            there = await self._source.has_event(claim.token)
        except HistoryLost:
            if not claim.may_be_lost:
                raise
            return
        looks = self._run_state.looked_up(there)
        judge(claim, there, operation_time=self._run_state.operation_time, looks=looks)

    async def of_opening(self, claim: Claim | None) -> None:
        """As `of`, where a position is about to be read on from: a change that is older than the oplog passes.

        Nothing tells whose it is. To read on after it fails as well, and the gap is dealt with then; a watcher that
        begins elsewhere on purpose takes no position from it."""
        try:
            await self.of(claim)
        except HistoryLost:
            log.info("position_not_proved", token=claim and name_of(claim.token), place=claim and claim.place)
