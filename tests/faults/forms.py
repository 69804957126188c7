"""The faults of the other forms, by name: those of the first one that strike them as well, and their own."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import crowd_hands, instance_hands, snapshot_hands
from tests.faults.catalogue import (
    AWAY_SECONDS,
    CROWD_PREFIX,
    FAULTS,
    FROZEN_SECONDS,
    INSTANCES_PREFIX,
    PAUSED_SECONDS,
    SNAPSHOTS_PREFIX,
    Fault,
)
from tests.faults.instances import BATCHES_ONE, FAST_ONE

AS_EVER = (
    "service-kill",
    "service-kill-all",
    "service-term",
    "service-freeze",
    "mongo-kill-primary",
    "mongo-freeze-primary",
    "mongo-kill-all",
    "mongo-stepdown",
    "nats-kill-leader",
    "nats-kill-only",
    "nats-kill-all",
    "link-mongo-cut",
    "link-mongo-slowed",
    "link-mongo-reset",
    "link-nats-cut",
    "zombie",
    "collection-dropped",
    "collection-renamed",
    "database-dropped",
    "images-switched",
)
"""Those of them that strike a crowd as well."""
CROWD = {
    fault.name: fault
    for fault in [
        *(replace(FAULTS[name], name=f"{CROWD_PREFIX}{name}") for name in AS_EVER),
        Fault("crowd-paused", crowd_hands.paused, PAUSED_SECONDS),
        Fault("crowd-full", crowd_hands.full, 0),
        Fault("crowd-let-go", crowd_hands.let_go, 0),
        Fault("crowd-visited", crowd_hands.visited, AWAY_SECONDS),
        Fault("crowd-strangers", crowd_hands.strangers, 0),
    ]
}
"""All of the form with forty watchers (`crowd.py`)."""
EVER_MORE = (
    "service-kill-all",
    "service-term-all",
    "service-freeze-all",
    "mongo-kill-primary",
    "mongo-freeze-primary",
    "mongo-stepdown",
    "nats-kill-leader",
    "nats-kill-all",
    "nats-freeze-leader",
    "link-mongo-cut",
    "link-nats-cut",
    "link-nats-reset",
    "registry-dropped",
)
"""Those of the first form that strike three instances as well."""
INSTANCES = {
    fault.name: fault
    for fault in [
        *(replace(FAULTS[name], name=f"{INSTANCES_PREFIX}{name}") for name in EVER_MORE),
        Fault("instances-killed", instance_hands.killed, 0),
        Fault("instances-two-killed", instance_hands.two_killed, 0),
        Fault("instances-restarted", instance_hands.restarted_at_once, 0),
        Fault("instances-rolling", instance_hands.rolling, 0),
        Fault("instances-left", instance_hands.left, AWAY_SECONDS),
        Fault("instances-fourth", instance_hands.fourth, AWAY_SECONDS),
        Fault("instances-frozen", instance_hands.frozen, 0),
        Fault("instances-zombie-r1", instance_hands.zombie(FAST_ONE), 0),
        Fault("instances-zombie-r3", instance_hands.zombie(BATCHES_ONE), 0),
        Fault("instances-cut-from-mongo", instance_hands.cut("mongo"), FROZEN_SECONDS),
        Fault("instances-cut-from-nats", instance_hands.cut("nats"), FROZEN_SECONDS),
        Fault("instances-paused", instance_hands.paused, 0),
        Fault("instances-visited", instance_hands.visited, 0),
    ]
}
"""All of the form with three instances that share watchers (`instances.py`)."""
SNAPSHOTS_AS_EVER = (
    "service-kill",
    "service-kill-all",
    "service-term",
    "service-freeze",
    "mongo-kill-primary",
    "mongo-freeze-primary",
    "mongo-kill-all",
    "mongo-stepdown",
    "nats-kill-leader",
    "nats-kill-only",
    "nats-kill-all",
    "nats-freeze-leader",
    "link-mongo-cut",
    "link-mongo-reset",
    "link-nats-cut",
    "link-nats-reset",
    "link-nats-no-ack",
    "zombie",
    "batch-reset-r1",
    "batch-reset-r3",
    "batch-zombie-r1",
    "batch-zombie-r3",
)
"""Those of the first form that strike snapshots as well."""
SNAPSHOTS = {
    fault.name: fault
    for fault in [
        *(replace(FAULTS[name], name=f"{SNAPSHOTS_PREFIX}{name}") for name in SNAPSHOTS_AS_EVER),
        *(
            Fault(f"{SNAPSHOTS_PREFIX}{kind}-{moment}", strike(moment), 0)
            for kind, strike in (("killed", snapshot_hands.killed), ("stopped", snapshot_hands.stopped))
            for moment in snapshot_hands.MOMENTS
        ),
    ]
}
"""All of the form with snapshots (`snapshots.py`)."""
ALL = {**FAULTS, **CROWD, **INSTANCES, **SNAPSHOTS}
