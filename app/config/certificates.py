"""The certificates that the service shows to others, and until when they are valid.

One that has expired is loaded like any other; that it is the cause shows on the other side alone, as a refused
connection. So the service says it at the start and once a day, and so does `changewire doctor`. Python's `ssl` has no
public way to read the dates of a certificate in a file, so `validity` finds them in its DER form: the fifth field,
after four whose contents do not matter (RFC 5280, 4.1). Whether certificate and key fit is checked in `key_files.py`.
"""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from app.config.addresses import mongo_certificate
from app.config.settings import Settings, variable
from app.domain.findings import Finding, Level

SOON: Final = timedelta(days=30)
"""How long before its end a certificate is warned about."""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION = 0x30, 0xA0
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""UTCTime and GeneralizedTime."""


def look(settings: Settings, now: datetime) -> list[Finding]:
    """What there is to say of each certificate that is shown to others; `check` is the variable that names it."""
    return [_finding(name, path, now) for name, path in _own(settings)]


def validity(der: bytes) -> tuple[datetime, datetime]:
    """From when until when a certificate is valid. Raises ValueError for what is none."""
    _, at, _ = _element(der, 0, _SEQUENCE)
    _, at, _ = _element(der, at, _SEQUENCE)
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for _ in ("serial number", "algorithm", "issuer"):
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at, _SEQUENCE)
    begin, at = _time(der, at)
    end_of_it, _ = _time(der, at)
    return begin, end_of_it


def _own(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name in ("tls_cert", "nats_tls_cert"):
        path: Path | None = getattr(settings, name)
        if path is not None:
            yield variable(name), path
    named = mongo_certificate(settings.mongo_uri.get_secret_value())
    if named is not None:
        yield variable("mongo_uri"), Path(named)


def _finding(name: str, path: Path, now: datetime) -> Finding:
    try:
        spans = [validity(ssl.PEM_cert_to_DER_cert(text)) for text in _PEM.findall(path.read_text("latin-1"))]
    except (OSError, ValueError):  # the part that uses the file says more of what is wrong
        spans = []
    if not spans:
        found = f"no certificate with its dates can be read in {path}"
        return Finding("settings", name, Level.WARNING, found, "name a file with a certificate in PEM form")
    # A chain is valid where each of its certificates is.
    begin, end = max(each for each, _ in spans), min(each for _, each in spans)
    if now >= end:
        found = f"the certificate in {path} expired on {end:%Y-%m-%d %H:%M} UTC"
        return Finding("settings", name, Level.PROBLEM, found, "replace it, and restart the service")
    if now < begin:
        found = f"the certificate in {path} is not valid before {begin:%Y-%m-%d %H:%M} UTC"
        return Finding("settings", name, Level.PROBLEM, found, "replace it, or set the clock of this machine right")
    found = f"the certificate in {path} is valid until {end:%Y-%m-%d %H:%M} UTC"
    if end - now < SOON:
        advice = "replace it before that, and restart the service"
        return Finding("settings", name, Level.WARNING, f"{found}, for {_length(end - now)}", advice)
    return Finding("settings", name, Level.OK, found)


def _length(left: timedelta) -> str:
    return f"{left.days} days" if left.days > 1 else f"{left.total_seconds() / 3600:.0f} hours"


def _element(data: bytes, at: int, wanted: int | None = None) -> tuple[int, int, int]:
    """The tag of the element there, where its content begins, and where that ends (X.690, 8.1)."""
    if at + 2 > len(data):
        raise ValueError("ends too early")
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + count]), begin + count
    if begin + length > len(data) or wanted not in (None, tag):
        raise ValueError("is no certificate")
    return tag, begin, begin + length


def _time(data: bytes, at: int) -> tuple[datetime, int]:
    tag, begin, end = _element(data, at)
    if tag not in _TIMES:
        raise ValueError("has no time where it should begin or end")
    moment = datetime.strptime(data[begin:end].decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC)
    if tag == 0x17 and moment.year >= 2050:  # two digits from 50 on are of the last century, from 69 on for Python
        moment = moment.replace(year=moment.year - 100)
    return moment, end
