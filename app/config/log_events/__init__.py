"""The catalogue of log events: what each one says, and what to do.

`docs/logs.md` is made of it, with the levels and fields that stand in the code; a test keeps both complete. The service
reads it too: a warning or an error has the advice in `hint`.
"""

from app.config.log_events.event import Event
from app.config.log_events.fields import AUDIT_FIELDS, FIELDS
from app.config.log_events.instances import INSTANCES
from app.config.log_events.servers import SERVERS
from app.config.log_events.service import SERVICE
from app.config.log_events.snapshots import SNAPSHOTS
from app.config.log_events.streams import STREAMS
from app.config.log_events.watchers import WATCHERS

__all__ = ["AUDIT_FIELDS", "EVENTS", "FIELDS", "SECTIONS", "Event"]

SECTIONS: dict[str, dict[str, Event]] = {
    "Watchers": WATCHERS,
    "Messages and streams": STREAMS,
    "Snapshots": SNAPSHOTS,
    "MongoDB and NATS": SERVERS,
    "Instances and the registry": INSTANCES,
    "The service": SERVICE,
}
"""In the order of the page."""
EVENTS: dict[str, Event] = {name: event for section in SECTIONS.values() for name, event in section.items()}
