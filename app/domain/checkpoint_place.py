"""The collection that a watcher names for its position."""

from dataclasses import dataclass

TOKENS_DATABASE = "resume-tokens"
"""Where mongodb-nats-connector keeps its tokens. Where a watcher names a place without a database, it is this one."""
MAX_CAPPED = 1024**5
"""Bytes: MongoDB's limit for a capped collection, a petabyte."""


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """A collection that holds one watcher's position and no other's."""

    database: str = TOKENS_DATABASE
    collection: str = ""
    capped: bool = False
    size_in_bytes: int = 0

    @property
    def namespace(self) -> str:
        return f"{self.database}.{self.collection}"

    @property
    def size_problem(self) -> str | None:
        """Say in a sentence why a collection cannot have this size, or return None."""
        if self.capped and self.size_in_bytes <= 0:
            return "must be more than 0 for a capped collection, for example 4096"
        if self.size_in_bytes > MAX_CAPPED:
            return f"is more than {MAX_CAPPED} bytes, the most that MongoDB allows"
        return None
