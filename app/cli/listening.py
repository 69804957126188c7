"""Binding the address that HTTP is served on, before anything is started: an address in use is reported at once.

Kept apart from `http_server.py`, whose imports take long.
"""

import errno
import socket

from app.cli import MISUSE, CommandError


def listen(host: str, port: int, *, what: str = "", instead: str = "choose another") -> list[socket.socket]:
    """Take the address, before anything else is started. Raises CommandError in a sentence.

    `what` names where the address came from, `instead` is what to do about a port in use besides freeing it.
    """
    where = f"{what}{host or 'every address'}, port {port}"
    try:
        if not host:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return [socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=2048)]
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return [socket.create_server(address[:2], family=family, backlog=2048)]
    except socket.gaierror as error:
        raise CommandError(f"{what}{host} is not an address of this machine ({error.strerror})", MISUSE) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"{where} is in use by another program; stop it or {instead}") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise CommandError(f"{what}{host} is not an address of this machine", MISUSE) from error
        raise CommandError(f"{where} cannot be served ({error.strerror})") from error
