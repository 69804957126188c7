"""Settings are read in an empty directory, and a refusal is looked through for secrets."""

from pathlib import Path

import pytest

from app.config.settings import SettingsError, load

SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(**environ: str) -> str:
    """What is said of these variables, which cannot be used."""
    with pytest.raises(SettingsError) as error:
        load(environ=environ)
    assert SECRET not in str(error.value)
    assert "Traceback" not in str(error.value)
    return str(error.value)
