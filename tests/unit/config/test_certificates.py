"""Until when the service's own certificates are valid: read right, whatever made them, and said with the date."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.config import certificates
from app.config.settings import Settings
from app.domain.findings import Level
from tests.credentials import self_signed
from tests.unit.cli.test_process import child_environment

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
moments = st.datetimes(datetime(1950, 1, 2), datetime(9998, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)


@given(st.lists(moments, min_size=2, max_size=2, unique=True).map(sorted), st.text(min_size=1, max_size=60))
@settings(max_examples=30)
def test_the_dates_are_those_that_were_written(span: list[datetime], name: str) -> None:
    begin, end = span
    pem, _ = self_signed(begin, end, name.encode("utf-8", "replace").decode())
    assert certificates.validity(ssl.PEM_cert_to_DER_cert(pem)) == tuple(span)


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        certificates.validity(data)


@given(st.integers(0, 400), st.binary(max_size=3))
def test_a_damaged_one_is_read_or_a_value_error(at: int, damage: bytes) -> None:
    der = ssl.PEM_cert_to_DER_cert(PEM)
    try:
        begin, end = certificates.validity(der[:at] + damage + der[at + len(damage) :])
    except ValueError:
        return
    assert begin.tzinfo is end.tzinfo is UTC


PEM, _ = self_signed(NOW, NOW + timedelta(days=365))


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [
        ((-400, -1), Level.PROBLEM, "expired on 2026-06-30 12:00 UTC"),
        ((-400, 0), Level.PROBLEM, "expired on 2026-07-01 12:00 UTC"),
        ((1, 400), Level.PROBLEM, "not valid before 2026-07-02 12:00 UTC"),
        ((-1, 29), Level.WARNING, "valid until 2026-07-30 12:00 UTC, for 29 days"),
        ((-1, 0.5), Level.WARNING, "valid until 2026-07-02 00:00 UTC, for 12 hours"),
        ((-1, 31), Level.OK, "valid until 2026-08-01 12:00 UTC"),
    ],
)
def test_each_certificate_is_said_with_its_variable_and_date(
    tmp_path: Path, days: tuple[float, float], level: Level, said: str
) -> None:
    begin, end = (NOW + timedelta(days=each) for each in days)
    pem, key = self_signed(begin, end)
    good, _ = self_signed(NOW - timedelta(days=1), NOW + timedelta(days=3650))
    chain, file = tmp_path / "chain.pem", tmp_path / "key.pem"
    file.write_text(key)
    for text in (pem, f"Subject: a chain\n{pem}{good}", f"{good}{pem}{key}"):
        chain.write_text(text)
        given = Settings.model_construct(
            tls_cert=chain, nats_tls_cert=chain, mongo_uri=SecretStr(f"mongodb://h/?a=b&tlsCertificateKeyFile={chain}")
        )
        found = certificates.look(given, NOW)
        assert [one.check for one in found] == ["CHANGEWIRE_TLS_CERT", "CHANGEWIRE_NATS_TLS_CERT", "MONGO_URI"]
        assert {one.level for one in found} == {level}
        assert all(said in one.found and str(chain) in one.found for one in found)
        assert all(bool(one.advice) == (level is not Level.OK) for one in found)


def test_a_file_without_a_certificate_is_a_warning_and_no_setting_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for path in (tmp_path / "x.pem", tmp_path / "absent.pem", tmp_path):
        uri = SecretStr(f"mongodb://h/?tlsCertificateKeyFile={path}")
        (found,) = certificates.look(Settings(mongo_uri=uri), NOW)
        assert found.level is Level.WARNING
    assert certificates.look(Settings(), NOW) == []


async def test_the_service_says_at_its_start_that_its_certificate_has_expired(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pem, key = self_signed(now - timedelta(days=9), now - timedelta(days=2))
    (tmp_path / "cert.pem").write_text(pem)
    (tmp_path / "key.pem").write_text(key)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve",
        cwd=tmp_path,
        env=child_environment(
            SERVER_ADDR="127.0.0.1:0", MONGO_URI="mongodb://127.0.0.1:9/", NATS_URL="nats://127.0.0.1:9",
            CHANGEWIRE_TLS_CERT="cert.pem", CHANGEWIRE_TLS_KEY="key.pem", CHANGEWIRE_LOG_FORMAT="json",
        ),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    said: list[dict[str, str]] = []
    try:
        while not said or said[-1]["event"] != "listening":
            said.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 60)))
    finally:
        process.kill()
        await process.wait()
    (warning,) = (each for each in said if each["event"] == "certificate")
    assert (warning["level"], warning["variable"]) == ("warning", "CHANGEWIRE_TLS_CERT")
    assert f"expired on {now - timedelta(days=2):%Y-%m-%d}" in warning["problem"]
