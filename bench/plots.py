"""The figures drawn: `python -m bench.plots bench/results/latest.json docs/images`.

Three images: how many events a second each contender drains, by workload; the floors below a drain; and how long an
insert takes to arrive, as a curve over the percentiles. Matplotlib is a dependency of development alone.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from bench.floors import ALL_BUSY, in_use, processors_limit
from bench.report import median_of, read_json
from bench.workload import HEADLINE, SIZES, WORKLOADS

THROUGHPUT, FLOORS, LATENCY = "throughput.png", "floors.png", "latency.png"
COLOURS = {
    "changewire": "#1f6f8b",
    "changewire-python": "#7fb3c4",
    "mq-bridge": "#c8743c",
    "one-by-one": "#8a5a83",
}
_BARS = {
    "reading alone": "#6f8f5a",
    "encoding alone": "#b59b45",
    "publishing alone": "#c8743c",
    ALL_BUSY: "#b9b9b9",
    "the drain": "#1f6f8b",
}
_OTHERS = ("#5b8c5a", "#a89c3a", "#444444")
_PERCENTS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
_LABELS = {each.name: each.name.replace("-", "\n") for each in WORKLOADS} | {HEADLINE.name: "inserts\n1.4 kB"}
_LABELS |= {"small": "inserts\n0.3 kB", "large": "inserts\n16 kB", "transactions": "trans-\nactions"}


def draw(content: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw what there is in a run's results; return the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    sections, drawn = content["sections"], []
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        rounds = [
            one for name in ("drain", "workloads") for one in sections.get(name, {}).get("data", {}).get("rounds", [])
        ]
        if rounds:
            drawn.append(_save(_throughput, rounds, directory / THROUGHPUT, (9.0, 3.6)))
        if compared := sections.get("costs", {}).get("data", {}):
            found = sections["floors"]["data"]["floors"]
            sizes = [
                (load.size, found[load.name]["floors"], compared[load.name]["rate"])
                for load in SIZES
                if load.name in compared
            ]
            drawn.append(_save(_floors, sizes, directory / FLOORS, (9.0, 3.2)))
        if runs := sections.get("latency", {}).get("data", {}).get("runs", []):
            drawn.append(_save(_latency, runs, directory / LATENCY, (9.0, 4.2)))
    return drawn


def _save(paint: Any, data: Sequence[Any], path: Path, size: tuple[float, float]) -> Path:
    figure = Figure(figsize=size, layout="constrained")
    paint(figure.subplots(), data)
    # Without the version of what drew it: the same figures give the same file.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    return path


def _throughput(axes: Axes, rounds: Sequence[Mapping[str, Any]]) -> None:
    loads = _in_order(each["workload"] for each in rounds)
    names = _in_order(each["contender"] for each in rounds)
    width = 0.85 / len(names)
    for at, load in enumerate(loads):
        able = [name for name in names if any((each["workload"], each["contender"]) == (load, name) for each in rounds)]
        for index, name in enumerate(able):
            rates = [
                each["events_per_second"] for each in rounds if (each["workload"], each["contender"]) == (load, name)
            ]
            middle = median_of(rates)
            axes.bar(
                at + (index - (len(able) - 1) / 2) * width,
                middle,
                width * 0.92,
                color=_colour(name, names),
                yerr=[[middle - min(rates)], [max(rates) - middle]],
                error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
            )
    for name in names:
        axes.bar(0, 0, 0, color=_colour(name, names), label=name)
    axes.set_xticks(range(len(loads)), [_LABELS.get(load, load) for load in loads])
    axes.set_ylabel("events/s, median and range")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1))


def _floors(axes: Axes, sizes: Sequence[tuple[int, Mapping[str, Any], float]]) -> None:
    """Logarithmic, since a large document takes twenty times as long as a small one."""
    width = 0.85 / len(_BARS)
    for at, (_, floors, drained) in enumerate(sizes):
        rates = [floor["events_per_second"] for floor in in_use(floors).values()]
        for index, rate in enumerate([*rates, processors_limit(floors), drained]):
            place = at + (index - (len(_BARS) - 1) / 2) * width
            axes.bar(place, rate, width * 0.92, color=[*_BARS.values()][index])
            axes.annotate(f"{rate / 1000:,.0f}k", (place, rate), ha="center", va="bottom", fontsize=7)
    for name, colour in _BARS.items():
        axes.bar(0, 0, 0, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(sizes)), [f"{size:,} bytes" for size, _, _ in sizes])
    axes.set_ylabel("events/s")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=len(_BARS), loc="lower left", bbox_to_anchor=(0, 1))


def _latency(axes: Axes, runs: Sequence[Mapping[str, Any]]) -> None:
    names = _in_order(each["contender"] for each in runs if each["service_cpu"] is not None)
    styles = ["-", "--", "-.", ":"]
    for run in runs:
        name, points = run["contender"], run["distribution"]
        rates = _in_order(each["rate"] for each in runs if each["contender"] == name)
        axes.plot(
            [1 / (1 - percent / 100) for percent, _ in points],
            [max(0.05, ms) for _, ms in points],
            styles[rates.index(run["rate"]) % len(styles)],
            color="#999999" if run["service_cpu"] is None else _colour(name, names),
            linewidth=1 if run["service_cpu"] is None else 1.5,
            label=f"{name}, {run['rate']:,}/s",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1 / (1 - percent / 100) for percent in _PERCENTS]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{percent:g} %" for percent in _PERCENTS]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("of all inserts have arrived")
    axes.set_ylabel("ms after the acknowledgement")
    axes.grid(linewidth=0.4)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _in_order(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _colour(name: str, names: Sequence[str]) -> str:
    if name in COLOURS:
        return COLOURS[name]
    others = [each for each in names if each not in COLOURS]
    return _OTHERS[others.index(name) % len(_OTHERS)]


def main() -> None:
    """Draw the file named first into the directory named second."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m bench.plots RESULTS.json DIRECTORY")
    for path in draw(read_json(Path(sys.argv[1])), Path(sys.argv[2])):
        print(f"drawn to {path}")


if __name__ == "__main__":
    main()
