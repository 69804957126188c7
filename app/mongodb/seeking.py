"""Servers that the driver has given up are asked again.

By MongoDB's specification "Server Discovery and Monitoring" a driver removes a server that answers and is no member of
the replica set in the connection string. If that was the last one, it has none left to ask, and finds none any more.
But such a server may be a member later: a mongod that runs without --replSet for maintenance, or one that is made a
replica set only now. The driver has no call for this, so its description is set back to what it was at the start.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymongo.server_description import ServerDescription
from pymongo.topology_description import TopologyDescription

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient


def seek_again(client: "AsyncIOMotorClient[Mapping[str, Any]]") -> None:
    """Have the driver ask the servers of the connection string again, where it has given up all of them."""
    now = client.delegate.topology_description
    if (
        now.server_descriptions() or now.topology_type_name != "ReplicaSetNoPrimary"
    ):  # that of a closed client is Unknown
        return
    topology = client.delegate._topology
    with topology._lock:
        given_up, settings = topology._description, topology._settings
        topology._description = TopologyDescription(
            given_up.topology_type,
            {seed: ServerDescription(seed) for seed in settings.seeds},
            given_up.replica_set_name,
            given_up.max_set_version,
            given_up.max_election_id,
            settings,
        )
        topology._update_servers()
