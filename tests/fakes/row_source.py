"""A deployment without any documents that existed before."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.ports import Rows


class FakeRows:
    """`RowSource`."""

    async def check(self, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        return

    async def parts(self, wanted: Sequence[str]) -> list[Part]:
        return []

    async def estimate(self, parts: Sequence[Part]) -> int | None:
        return 0

    async def boundary(self, part: Part, after: bytes | None, count: int) -> bytes | None:
        return None

    async def read(
        self,
        part: Part,
        at: ClusterTime,
        *,
        after: bytes | None,
        until: bytes | None,
        limit: int,
        filter_: str | None,
    ) -> Rows:
        return Rows([], [], 0)
