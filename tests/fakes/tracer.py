"""A tracer that remembers what it was told."""

import itertools
from collections.abc import Mapping, Sequence

from app.ports.tracer import Span, SpanName


class FakeSpan:
    """A span with ids that grow, so that a test can say which one a header names."""

    def __init__(
        self,
        name: SpanName,
        attributes: Mapping[str, str | int],
        ids: tuple[int, int],
        parent: Span | None,
        links: Sequence[Span],
    ) -> None:
        self.name = name
        self.attributes = dict(attributes)
        self.ids = ids
        self.parent = parent
        self.links = list(links)
        self.ended = False
        self.error: BaseException | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.ids[0]:032x}-{self.ids[1]:016x}-01"

    def end(self, error: BaseException | None = None) -> None:
        if not self.ended:
            self.ended, self.error = True, error


class FakeTracer:
    """`spans` are those that have begun, in their order."""

    def __init__(self) -> None:
        self.spans: list[FakeSpan] = []
        self.closed = False
        self._numbers = itertools.count(1)

    def begin(
        self,
        name: SpanName,
        attributes: Mapping[str, str | int],
        *,
        parent: Span | None = None,
        links: Sequence[Span] = (),
        at: int | None = None,
    ) -> FakeSpan:
        assert not self.closed
        number = next(self._numbers)
        trace = parent.ids[0] if isinstance(parent, FakeSpan) else number
        self.spans.append(FakeSpan(name, attributes, (trace, number), parent, links))
        return self.spans[-1]

    async def close(self) -> None:
        self.closed = True

    def named(self, name: SpanName) -> list[FakeSpan]:
        return [span for span in self.spans if span.name == name]
