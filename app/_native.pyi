from collections.abc import Sequence

from app.domain.events import Change

Text = tuple[str, int, str]

class Block:
    operations: list[str]
    def __len__(self) -> int: ...
    def change(self, index: int) -> tuple[str, str, bytes, float, str, str]: ...
    def size(self, start: int, stop: int) -> int: ...
    def fitting(self, start: int, stop: int, most: int, beside: int) -> int: ...
    def counts(self, start: int, stop: int) -> list[int]: ...
    def wall_times(self, start: int, stop: int) -> list[float]: ...
    def frames(
        self, places: tuple[int, int, int], about: int, subjects: list[str], reply: Text | None, lines: Text
    ) -> tuple[bytes, int]: ...

class Subjects:
    def __init__(self, pieces: list[str]) -> None: ...
    def subject(self, database: str, collection: str, operation: str) -> str | None: ...

def pack(
    buffer: bytes,
    bounds: tuple[Sequence[int], Sequence[int]],
    id_suffix: str,
    last: str,
    operations: list[str],
    fits: tuple[int, int],
    subjects: Subjects | None,
) -> Block | None: ...
def pack_rows(
    buffer: bytes,
    bounds: tuple[Sequence[int], Sequence[int]],
    place: str,
    time: tuple[int, int],
    names: tuple[str, str] | None,
    last: str,
    fits: tuple[int, int],
    subjects: Subjects | None,
) -> Block | None: ...
def split(
    buffer: bytes, bounds: tuple[Sequence[int], Sequence[int]]
) -> list[tuple[str, str, bytes, list[int], list[int], str, str]] | None: ...
def transcode(events: Sequence[bytes], id_suffix: str, make: type[Change]) -> list[Change | None]: ...
