"""What the runs of all watchers of a process need of the outside, handed around as one value."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.domain.errors import ChangewireError, Conflict, NotAuthorised, RegistryError, Unavailable
from app.domain.outage import Outage
from app.pipeline.batch_encoder import Codec
from app.pipeline.memory_budget import MemoryBudget
from app.pipeline.opening_gate import OpeningGate
from app.pipeline.quiet_pace import QuietPace
from app.pipeline.snapshot_limits import SnapshotLimits
from app.pipeline.waves import Waves
from app.ports import Mongo, Nats, Observer, Tracing


@dataclass(frozen=True, slots=True)
class Tuning:
    """When a writer gives way and when it takes over."""

    losses: int = 3
    """Races lost in a row to another writer after which it stands by."""
    silence_seconds: float = 10.0
    """How long changes have to wait before a standby takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all runs of a process share, whatever they watch: the codec, the observer who is told what happens, the
    clock (seconds since 1970), when to give way, how much may be held, how many open at the same time, when new
    watchers begin, how often quiet positions are stored, and how much snapshots may take; and which server does not
    answer."""

    codec: Codec
    observer: Observer
    clock: Callable[[], float] = time.time
    tuning: Tuning = Tuning()
    memory_budget: MemoryBudget = field(default_factory=MemoryBudget)
    opening_gate: OpeningGate = field(default_factory=OpeningGate)
    waves: Waves = field(default_factory=Waves)
    quiet_pace: QuietPace = field(default_factory=QuietPace)
    snapshots: SnapshotLimits = field(default_factory=SnapshotLimits)
    outage: Outage = field(default_factory=Outage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies(Shared):
    """All that, and both servers."""

    mongo: Mongo
    nats: Nats
    tracing: Tracing | None = None
    """Traces what the runs do; None: nothing is traced."""


@asynccontextmanager
async def servers_needed() -> AsyncIterator[None]:
    """Turn a server's trouble into Unavailable, which says that nothing was changed."""
    try:
        yield
    except RegistryError:
        raise
    except NotAuthorised as error:
        raise Conflict(str(error)) from error
    except ChangewireError as error:
        raise Unavailable(str(error)) from error
