"""All metrics in one place: each once, described, and gone with its watcher."""

from app.metrics.families import Families
from app.metrics.kinds import CounterFamily, HistogramFamily


def test_each_name_is_there_once_with_a_help_text_that_ends() -> None:
    families = list(Families())
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.text.endswith("."), family.name
        assert isinstance(family, CounterFamily) is family.name.endswith("_total"), family.name


def test_a_forgotten_watcher_takes_its_own_series_and_those_of_its_subjects_from_every_family() -> None:
    families = Families()
    labelled = [family for family in families if family.labels]
    for family in labelled:
        for name in ("kept", "gone"):
            labels = tuple(f"{name}.insert" if label == "subject" else name for label in family.labels)
            if isinstance(family, HistogramFamily):
                family.series[labels].observe(1)
            else:
                family.series[labels] = 1
    families.forget("gone", {"gone.insert"})
    for family in labelled:
        theirs = "watcher" in family.labels or "subject" in family.labels
        assert len(family.series) == (1 if theirs else 2), family.name
        assert any("kept" in label for labels in family.series for label in labels), family.name
