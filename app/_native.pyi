from collections.abc import Sequence

from app.domain.events import Change

def transcode(events: Sequence[bytes], id_suffix: str, make: type[Change]) -> list[Change | None]: ...
