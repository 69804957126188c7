"""Addresses and connection strings as people write them: what they mean, and what is wrong with them.

A sentence about a connection string never repeats a part of it, since a password may stand in an unexpected place.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

_HOST = re.compile(r"((\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_MONGO = re.compile(r"mongodb(?:\+srv)?://(.*)", re.DOTALL)
_ENCODE = (
    "in a user name or password each of : / ? # [ ] @ % has to be percent-encoded, for example @ as %40, / as %2F and "
    "% as %25"
)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port`, `:port` or `[IPv6]:port` into host (without brackets; empty for all) and port.

    Raises ValueError with a sentence that says what is wrong.
    """
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:/@\s]*)):([0-9]{1,5})", address.strip())
    if found is None:
        raise ValueError("is not host:port (an IPv6 address stands in brackets)")
    if int(found[3]) > 65535:
        raise ValueError("has a port above 65535")
    if found[1] is not None:
        try:
            ip_address(found[1])
        except ValueError:
            raise ValueError("has something in brackets that is not an IPv6 address") from None
    return found[1] or found[2] or "", int(found[3])


def signed_in(url: str) -> tuple[str, str | None, str | None, str | None]:
    """Return the URL of a server without its credentials, and these: user and password, or a token alone.

    They are percent-encoded in a URL, and nats-py would send them so."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.username is None:
        return url, None, None, None
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username), None if parts.password is None else unquote(parts.password)
    return (address, None, None, user) if password is None else (address, user, password, None)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches `host`."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def parse_hosts(text: str) -> tuple[str, ...]:
    """Split a list of `host`, `host:port`, `*.domain` and `*`, in lower case.

    Raises ValueError with a sentence that says what is wrong.
    """
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise ValueError(
                f"has {host!r}, which is not a host such as example.com, example.com:8080 or *.example.com"
            )
    return hosts


def mongo_uri_problem(uri: str) -> str | None:
    """Say why `uri` is no MongoDB connection string, or return None.

    Format: MongoDB's "Connection String" specification. What the options may be is the driver's to know.
    """
    found = _MONGO.fullmatch(uri)
    if found is None:
        return "is not mongodb:// or mongodb+srv:// and a host"
    authority = re.split(r"[/?]", found[1], maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    if "@" in user or user.count(":") > 1 or _BAD_PERCENT.search(user):
        return f"has a user name or password that cannot be read: {_ENCODE}"
    # A slash or question mark in the password ends the authority too early: the @ is left in what follows.
    if not at and "@" in found[1].partition("?")[0] + ("" if _plain(hosts) else found[1]):
        return f"looks as if a user name or password were not encoded: {_ENCODE}"
    if not hosts:
        return "is not mongodb:// or mongodb+srv:// and a host"
    if not _plain(hosts):
        return "has a part that is not host or host:port, or more than one part that is not separated by a comma"
    return None


def mongo_certificate(uri: str) -> str | None:
    """The file that a MongoDB connection string names as the client's certificate; None where it names none."""
    return next((path for name, path in _mongo_files(uri) if name.lower() == "tlscertificatekeyfile"), None)


def mongo_file_problem(uri: str) -> str | None:
    """Say which file that a MongoDB connection string names cannot be read, or return None."""
    for name, path in _mongo_files(uri):
        try:
            Path(path).read_bytes()
        except OSError as error:
            return f"names a file in {name} that cannot be read ({error.strerror})"
    return None


def _mongo_files(uri: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a MongoDB connection string that name a file, as they are written, and the file."""
    for option in uri.partition("?")[2].split("&"):
        name, _, value = option.partition("=")
        if name.lower() in ("tlscafile", "tlscertificatekeyfile", "tlscrlfile") and value:
            yield name, unquote(value)


def nats_url_problem(text: str) -> str | None:
    """Say why `text` is no list of NATS servers, or return None."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        return "names no server"
    for part in parts:
        try:
            url = urlsplit(part if "://" in part else f"nats://{part}")
            if url.scheme not in ("nats", "tls", "ws", "wss"):
                return "has a scheme that is not nats, tls, ws or wss"
            if not url.hostname or url.port == 0:
                return "has a part that is not host:port"
        except ValueError:
            return "has a part that is not host:port"
    return None


def _plain(hosts: str) -> bool:
    """Whether these are hosts with or without ports, or the percent-encoded path of a socket."""
    return all(re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@\s]+)(:[0-9]{1,5})?", host) for host in hosts.split(","))
