"""Files of keys and certificates: what no reader of them says clearly, said before they are used."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from app.config.settings import load
from tests.credentials import Key, Operator
from tests.unit.config.conftest import SECRET, refused


def test_a_file_of_keys_or_certificates_is_looked_into(tmp_path: Path) -> None:
    """What no reader of it says clearly, if it says anything: nats-py and OpenSSL, when it is too late."""
    ours, others = trustme.CA().issue_cert("127.0.0.1"), trustme.CA().issue_cert("127.0.0.1")
    ours.cert_chain_pems[0].write_to_path("cert.pem")
    ours.private_key_pem.write_to_path("key.pem")
    others.private_key_pem.write_to_path("other-key.pem")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    Path("locked-key.pem").write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(SECRET.encode())))
    Path("nonsense").write_text(SECRET)
    Path("user.nk").write_text(Key().seed)
    Path("right.creds").write_text(Operator().credentials())
    Path("account.nk").write_text(Key("account").seed)
    for wrong, said in (
        ({"NATS_CREDS": "nonsense"}, "NATS_CREDS=nonsense: names nonsense, which is no credentials file"),
        ({"NATS_CREDS": "user.nk"}, "which is no credentials file"),
        ({"NATS_NKEY_SEED_FILE": "nonsense"}, "which holds no seed of an NKey"),
        ({"NATS_NKEY_SEED_FILE": "account.nk"}, "of another kind (account)"),
        ({"NATS_TLS_CA": "key.pem"}, "NATS_TLS_CA=key.pem: names key.pem, which holds no certificate"),
        ({"NATS_TLS_CA": "absent.pem"}, "which cannot be read (No such file or directory)"),
        ({"NATS_TLS_CA": "."}, "which cannot be read (Is a directory)"),
        (
            {"NATS_TLS_CERT": "nonsense", "NATS_TLS_KEY": "key.pem"},
            "NATS_TLS_CERT=nonsense: names nonsense, which holds",
        ),
        (
            {"NATS_TLS_CERT": "cert.pem", "NATS_TLS_KEY": "cert.pem"},
            "NATS_TLS_KEY=cert.pem: names cert.pem, which holds",
        ),
        ({"TLS_CERT": "key.pem", "TLS_KEY": "key.pem"}, "CHANGEWIRE_TLS_CERT=key.pem: names key.pem, which holds no"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "other-key.pem"}, "CHANGEWIRE_TLS_KEY=other-key.pem: names other-key.pem"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "other-key.pem"}, "which is not the key of the certificate"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "locked-key.pem"}, "without a password"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "absent.pem"}, "which cannot be read (No such file or directory)"),
    ):
        told = refused(**{f"CHANGEWIRE_{name}": value for name, value in wrong.items()})
        assert said in told
        assert "Example: /" in told
        assert len(told.splitlines()) == 1
    pair = {"CHANGEWIRE_NATS_TLS_CERT": "cert.pem", "CHANGEWIRE_NATS_TLS_KEY": "key.pem"}
    load(environ={**pair, "CHANGEWIRE_NATS_TLS_CA": "cert.pem", "CHANGEWIRE_NATS_CREDS": "right.creds"})
    load(environ={"CHANGEWIRE_NATS_NKEY_SEED_FILE": "user.nk"})
