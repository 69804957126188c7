"""Keys and JWTs as `nsc` makes them, and certificates, for servers that are told to want them.

Formats: nkeys ("S" and kind, 32 bytes, CRC-16, in base 32) and NATS's JWT, version 2 (signed by Ed25519).
"""

import base64
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import nkeys
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KINDS = {"operator": nkeys.PREFIX_BYTE_OPERATOR, "account": nkeys.PREFIX_BYTE_ACCOUNT, "user": nkeys.PREFIX_BYTE_USER}
_UNLIMITED = {"subs": -1, "data": -1, "payload": -1}


def self_signed(begin: datetime, end: datetime, name: str = "localhost") -> tuple[str, str]:
    """A certificate that is valid in this time, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


class Key:
    """A new key pair of one kind."""

    def __init__(self, kind: str = "user") -> None:
        self.kind = kind
        self.seed: str = nkeys.encode_seed(os.urandom(32), KINDS[kind]).decode()
        self.public: str = nkeys.from_seed(bytearray(self.seed.encode())).public_key.decode()

    def sign(self, subject: "Key", **claims: Any) -> str:
        """A JWT about another key (or this one), issued by this one."""
        body = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": subject.kind,
            "nats": {"type": subject.kind, "version": 2, **claims},
        }
        parts = [_encoded(json.dumps(each).encode()) for each in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        signature = nkeys.from_seed(bytearray(self.seed.encode())).sign(".".join(parts).encode())
        return ".".join([*parts, _encoded(signature)])


class Operator:
    """An operator with one account that has JetStream."""

    def __init__(self) -> None:
        operator, system = Key("operator"), Key("account")
        self._account = Key("account")
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        limits = {**_UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1, **storage}
        preload = {self._account.public: operator.sign(self._account, limits=limits)}
        preload[system.public] = operator.sign(system, limits={**limits, **dict.fromkeys(storage, 0)})
        self.config = (
            f"operator: {operator.sign(operator)}\nsystem_account: {system.public}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {', '.join(f'{key}: {jwt}' for key, jwt in preload.items())} }}\n"
        )
        """For the server's configuration file."""

    def credentials(self, **limits: int) -> str:
        """The text of a credentials file for a new user of the account, with limits of its own (`payload`)."""
        user = Key()
        return credentials(self._account.sign(user, pub={}, sub={}, **{**_UNLIMITED, **limits}), user.seed)


class Certificates:
    """An authority, and what it and a stranger signed, as files."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.ca_key = self._authority(directory, "ca")
        self.other_ca, self.other_key = self._authority(directory, "other")
        self.server = self._signed(directory, "server", self.ca_key, "127.0.0.1")
        self.elsewhere = self._signed(directory, "elsewhere", self.ca_key, "nats.example")
        self.client = self._signed(directory, "client", self.ca_key, "client.example")
        self.stranger = self._signed(directory, "stranger", self.other_key, "client.example")

    @staticmethod
    def _authority(directory: Path, name: str) -> tuple[str, trustme.CA]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / f"{name}.pem"))
        return str(directory / f"{name}.pem"), authority

    @staticmethod
    def _signed(directory: Path, name: str, authority: trustme.CA, identity: str) -> dict[str, str]:
        certificate = authority.issue_cert(identity, organization_unit_name=f"changewire {name}", common_name=name)
        paths = {"tls_cert": str(directory / f"{name}.pem"), "tls_key": str(directory / f"{name}-key.pem")}
        certificate.private_key_pem.write_to_path(paths["tls_key"])
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(paths["tls_cert"])
        return paths

    @staticmethod
    def together(files: dict[str, str]) -> str:
        """One file with certificate and key, as MongoDB and its drivers want it."""
        path = Path(files["tls_key"]).with_suffix(".both.pem")
        path.write_text("".join(Path(files[part]).read_text() for part in ("tls_cert", "tls_key")))
        return str(path)

    @staticmethod
    def subject(files: dict[str, str]) -> str:
        """Whose certificate it is, as MongoDB names its X.509 users (RFC 4514)."""
        certificate = x509.load_pem_x509_certificate(Path(files["tls_cert"]).read_bytes())
        return certificate.subject.rfc4514_string()


def credentials(jwt: str, seed: str) -> str:
    """The text of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
