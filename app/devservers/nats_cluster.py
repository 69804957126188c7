"""Several nats-servers of one cluster on 127.0.0.1, for streams with replicas.

Clients know one or all of them; JetStream elects its leaders among them. Not its business: what goes wrong between
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.devservers.process import HOST, free_port
from app.devservers.servers import NatsServer

MEMBERS = 3


def membership(index: int, ports: Sequence[int], *, cluster: str, advertise: str = "") -> str:
    """The configuration of the member with this index, which is named `n<index>`; `ports` are all members' routes.

    `advertise` is the HOST:PORT that clients are told, where that is not the server's own."""
    routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
    told = f'client_advertise: "{advertise}"\n' if advertise else ""
    return (
        f'server_name: "n{index}"\n{told}'
        f'cluster {{ name: "{cluster}", listen: "{HOST}:{ports[index]}", routes: [{routes}] }}'
    )


class NatsCluster:
    """Three nats-servers that start and end together."""

    def __init__(self, name: str) -> None:
        ports = [free_port() for _ in range(MEMBERS)]
        self.members = [NatsServer(config=membership(index, ports, cluster=name)) for index in range(MEMBERS)]

    @property
    def url(self) -> str:
        """The addresses of all members, with commas between; valid after the first start."""
        return ",".join(member.url for member in self.members)

    @property
    def pids(self) -> list[int]:
        """The members' process ids. Raises RuntimeError where one is not running."""
        return [member.pid for member in self.members]

    async def start(self) -> None:
        """Start all; each says that it is ready once the cluster has a leader. Raises as `Server.start`."""
        await asyncio.gather(*(member.start() for member in self.members))

    async def stop(self) -> None:
        """Stop all; data and ports are kept."""
        await asyncio.gather(*(member.stop() for member in self.members))

    async def close(self) -> None:
        """Stop for good and remove the data."""
        await asyncio.gather(*(member.close() for member in self.members))
