"""Families in Prometheus' text format, as prometheus_client writes them and in a fraction of its time.

A thousand busy watchers are seventy thousand lines. prometheus_client makes an object and a dictionary of each, and
the event loop would wait for the interpreter all the while. Here a series' labels are written once, and its lines are
joined. The format: the Prometheus documentation, "Exposition formats".
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.metrics.kinds import CounterFamily, Family, GaugeFamily, HistogramFamily, Labels

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_UNUSUAL = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
_BOUND = "le"


class Seen(NamedTuple):
    """A family as it is at one moment: nothing that happens afterwards changes it."""

    family: Family
    values: Mapping[Labels, float]
    histograms: Iterable[tuple[Labels, list[int], float]] = ()


def seen(family: Family) -> Seen:
    """Copy what a family has counted. The caller keeps it from changing meanwhile."""
    if isinstance(family, HistogramFamily):
        return Seen(family, {}, [(labels, list(each.counts), each.sum) for labels, each in family.series.items()])
    return Seen(family, dict(family.series))


def written(now: Seen) -> str:
    """Return a family's lines."""
    family = now.family
    kind = "counter" if isinstance(family, CounterFamily) else "gauge"
    kind = kind if isinstance(family, CounterFamily | GaugeFamily) else "histogram"
    name, text = family.name, family.text.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n"]
    order = sorted(range(len(family.labels)), key=family.labels.__getitem__)
    names = [family.labels[place] for place in order]
    for labels, value in now.values.items():
        pairs = ",".join(f'{each}="{_escaped(labels[place])}"' for each, place in zip(names, order, strict=True))
        lines.append(f"{name}{{{pairs}}} {_number(value)}\n" if pairs else f"{name} {_number(value)}\n")
    if isinstance(family, HistogramFamily):
        first = [each for each in names if each < _BOUND]
        for labels, counts, total in now.histograms:
            pairs_ = [f'{each}="{_escaped(labels[place])}"' for each, place in zip(names, order, strict=True)]
            before = "".join(f"{pair}," for pair in pairs_[: len(first)])
            after = "".join(f",{pair}" for pair in pairs_[len(first) :])
            lines.append(_histogram(name, before, after, family.bounds_text, counts))
            pairs = ",".join(pairs_)
            lines.append(f"{name}_count{{{pairs}}} {_number(sum(counts))}\n{name}_sum{{{pairs}}} {_number(total)}\n")
    return "".join(lines)


def _histogram(name: str, before: str, after: str, bounds: Iterable[str], counts: Iterable[int]) -> str:
    """The lines of one series' buckets, which count all up to their bound."""
    total, lines = 0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{before}{_BOUND}="{bound}"{after}}} {_number(total)}\n')
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.translate(_ESCAPED) if "\\" in value or '"' in value or "\n" in value else value


def _number(value: float) -> str:
    """A number as Go writes it."""
    text = repr(float(value))
    if text in _UNUSUAL:
        return _UNUSUAL[text]
    dot = text.find(".")
    if dot > 6 and value > 0 and "e" not in text:
        digits = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{digits}e+{dot - 1:02d}"
    return text
