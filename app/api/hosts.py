"""Whether a request was meant for this server, by its Host and Origin.

A browser sends them truthfully, also for a malicious page. By DNS rebinding such a page makes its own name lead to this
server, so that the browser takes both for one site and lets the page read every answer. The Host is then the page's
name. So an address, or a name that nobody else can register, is safe. What follows from that is decided in `auth.py`.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from app.config.addresses import is_loopback, split_address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PRIVATE = (".localhost", ".local", ".internal", ".svc", ".home.arpa")
"""Ends of names that are in no public DNS; `.svc` is how Kubernetes shortens `.svc.cluster.local`."""


def is_own_host(hosts: list[str], port: int | None, scheme: str) -> bool:
    """Whether there is one Host, and it names this machine's loopback and the server's port."""
    name, given = _host(hosts, scheme)
    return is_loopback(name) and given == port


def is_own_origin(origin: str, port: int | None, scheme: str) -> bool:
    """Whether a page of this server, reached by a loopback name, has sent the request."""
    try:
        url = urlsplit(origin)
        given = url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError:
        return False
    return url.scheme == scheme and is_loopback(url.hostname or "") and given == port


def is_no_strangers_host(hosts: list[str], scheme: str) -> bool:
    """Whether no other site can have this Host: none, an address, a name without a dot, or one that is in no DNS."""
    if not hosts:
        return True  # no browser leaves it out
    name, _ = _host(hosts, scheme)
    if name and "." not in name:
        return True
    try:
        ip_address(name)
    except ValueError:
        return name.lower().endswith(_PRIVATE)
    return True


def is_allowed_host(hosts: list[str], scheme: str, allowed: tuple[str, ...]) -> bool:
    """Whether the one Host is in the list, with its port where the list names one; `*` is any, `*.x` all below x."""
    name, port = _host(hosts, scheme)
    name = name.lower()
    forms = {name, f"{name}:{port}", f"[{name}]", f"[{name}]:{port}"}
    return bool(name) and any(
        entry == "*" or entry in forms or (entry.startswith("*.") and name.endswith(entry[1:])) for entry in allowed
    )


def is_allowed_origin(origin: str, allowed: tuple[str, ...]) -> bool:
    """Whether the page that has sent the request is of a host in the list."""
    scheme, _, host = origin.partition("://")
    return is_allowed_host([host], scheme, allowed)


def _host(hosts: list[str], scheme: str) -> tuple[str, int | None]:
    """Name and port; an empty name where there is not exactly one, or it cannot be read."""
    if len(hosts) != 1:
        return "", None
    host = hosts[0]
    try:
        return split_address(host if host.rpartition("]")[2].count(":") else f"{host}:{_DEFAULT_PORTS[scheme]}")
    except (ValueError, KeyError):
        return "", None
