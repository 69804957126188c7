"""A permanent error is believed when it comes again, and not before."""

import pytest

from app.domain.errors import NotAuthorised, SourceRefused
from app.domain.second_look import SecondLook


def test_only_the_same_error_that_comes_again_later_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    look, wait = SecondLook(), 4.0
    monkeypatch.setattr(SourceRefused, "confirm_seconds", wait)
    assert not look.believes(SourceRefused(), now=100.0, well_at=0.0)
    assert not look.believes(SourceRefused(), now=100.0 + wait / 2, well_at=0.0)
    assert look.due(100.0) == wait
    assert look.believes(SourceRefused(), now=100.0 + wait, well_at=0.0)
    assert not look.believes(NotAuthorised(), now=200.0, well_at=0.0), "another kind"
    assert not look.believes(NotAuthorised(), now=300.0, well_at=250.0), "it went well in between"
    look.forget()
    assert look.due(300.0) is None
    assert not look.believes(NotAuthorised(), now=400.0, well_at=250.0), "another error came in between"
