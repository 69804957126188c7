"""Files that hold keys and certificates, checked before they are used.

The libraries that use them say too little: OpenSSL that "PEM lib" failed, or it asks the terminal for a password;
nats-py takes a seed with a typing error for another key, and looks indefinitely for the JWT in a file without one. The
settings ask here at the start, the connection to NATS before each attempt, since a file may be replaced meanwhile.

Every function returns what is wrong as the end of a sentence that begins with "which", or None; never what the file
holds. Whether a server accepts what the file says shows later.
"""

import binascii
import re
import ssl
from base64 import b32decode
from collections.abc import Callable
from pathlib import Path

_SEED = 18 << 3
_KINDS = {0: "account", 2 << 3: "cluster", 13 << 3: "server", 14 << 3: "operator", 20 << 3: "user"}
_JWT = re.compile(rb"BEGIN NATS USER JWT.*\n([\w-]+\.[\w-]+\.[\w-]+)\n")
_USER_SEED = re.compile(rb"BEGIN USER NKEY SEED.*\n(.*)\n")


def nkey_problem(path: Path) -> str | None:
    """Look for the seed of a user's NKey, alone in its file. Format: nkeys' README, "Internals"."""
    return _unreadable(path) or _seed_problem(path.read_bytes().strip())


def credentials_problem(path: Path) -> str | None:
    """Look for a user's JWT and seed between the marks that `nsc` writes."""
    problem = _unreadable(path)
    if problem is not None:
        return problem
    data = path.read_bytes()
    if b"\r" in data:
        return "has lines that end in CR LF; save it with LF alone"
    if _JWT.search(data) is None:
        return "is no credentials file: the block BEGIN NATS USER JWT is missing or damaged"
    seed = _USER_SEED.search(data)
    if seed is None:
        return "is no credentials file: the block BEGIN USER NKEY SEED is missing"
    return _seed_problem(seed[1])


def certificates_problem(path: Path) -> str | None:
    """Look for certificates in PEM form, of an authority or of a server or client."""

    def load(context: ssl.SSLContext) -> None:
        context.load_verify_locations(path)

    return _unreadable(path) or _refused(load, "holds no certificate in PEM form")


def private_key_problem(path: Path, certificate: Path) -> str | None:
    """Look for the private key of a certificate, in PEM form and without a password."""

    def load(context: ssl.SSLContext) -> None:
        context.load_cert_chain(certificate, path, password=lambda: "")  # OpenSSL would ask the terminal

    return _unreadable(path) or _refused(load, "holds no private key in PEM form that can be used without a password")


def _unreadable(path: Path) -> str | None:
    try:
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _refused(load: Callable[[ssl.SSLContext], None], otherwise: str) -> str | None:
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "is not the key of the certificate"
        return f"{otherwise} ({error.reason})" if error.reason else otherwise
    except (OSError, ValueError):  # vanished meanwhile; a password of the wrong length
        return otherwise
    return None


def _seed_problem(seed: bytes) -> str | None:
    try:
        raw = b32decode(seed + b"=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) == 35 and raw[0] in _KINDS:
        return "holds a public key, not the seed of an NKey (which begins with SU)"
    if len(raw) != 36 or raw[0] & 0xF8 != _SEED:
        return "holds no seed of an NKey (58 capitals and digits that begin with SU)"
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        return "holds a damaged seed of an NKey: its checksum does not fit"
    kind = _KINDS.get((raw[0] & 7) << 5 | raw[1] >> 3, "unknown")
    return None if kind == "user" else f"holds the seed of an NKey of another kind ({kind}); a user's begins with SU"
