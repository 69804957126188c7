"""Addresses and connection strings: what they mean, and what is said of a wrong one."""

from pathlib import Path

import pytest

from app.config.addresses import mongo_file_problem
from app.config.settings import load
from tests.unit.config.conftest import SECRET, refused


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://user:{SECRET}@2@host/",
        f"mongodb://user:{SECRET}/2@host/?replicaSet=rs0",
        f"mongodb://user:{SECRET}?2@host/",
        f"mongodb://user:{SECRET}:2@host/",
        f"mongodb://user:{SECRET}%x@host/",
        f"mongodb://us/er:{SECRET}@host/",
        f"mongodb://user:27017/{SECRET}@host/shop",
        f"mongodb+srv://user:{SECRET}@2@cluster.example/shop",
    ],
)
def test_a_password_that_is_not_encoded_is_named_as_the_cause(uri: str) -> None:
    said = refused(MONGO_URI=uri)
    assert said.startswith("MONGO_URI: ")
    assert "percent-encoded, for example @ as %40" in said
    assert "Example: mongodb://" in said


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:p%40ss%2F@h1,h2:27018/shop?replicaSet=rs0&authSource=admin",
        "mongodb://h1/?appName=me@home",
        "mongodb://[::1]:27017/",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock",
        "mongodb+srv://user@cluster.example/?retryWrites=true",
    ],
)
def test_a_good_connection_string_is_taken(uri: str) -> None:
    assert load(environ={"MONGO_URI": uri}).mongo_uri.get_secret_value() == uri


@pytest.mark.parametrize(
    ("address", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        (":8080", "", 8080, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::1]:8080", "::1", 8080, True),
        ("[::]:8080", "::", 8080, False),
        ("localhost:0", "localhost", 0, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("changewire.example:443", "changewire.example", 443, False),
    ],
)
def test_server_address(address: str, host: str, port: int, loopback: bool) -> None:
    settings = load(environ={"SERVER_ADDR": address})
    assert (settings.host, settings.port, settings.loopback) == (host, port, loopback)


def test_several_nats_servers() -> None:
    settings = load(environ={"NATS_URL": "nats://a:1, b:2,tls://c"})
    assert settings.nats_servers == ["nats://a:1", "nats://b:2", "tls://c"]


def test_a_file_that_a_connection_string_names_and_that_is_not_there_is_named_by_its_option(tmp_path: Path) -> None:
    there = tmp_path / "ca.pem"
    there.write_text("")
    assert mongo_file_problem(f"mongodb://h/?tls=true&tlsCAFile={there}") is None
    assert mongo_file_problem(f"mongodb://h/?tls=true&tlsCAFile={there}.old") == (
        "names a file in tlsCAFile that cannot be read (No such file or directory)"
    )
