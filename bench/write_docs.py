"""The measured part of docs/performance.md, written from a run's file: nobody types a figure.

`python -m bench.write_docs [RESULTS.json [PAGE.md]]` draws the images too. What stands outside the two markers is
written by hand and left alone. A section of `BESIDE` has a page of its own beside that one. Where a run has only such
sections (`make bench ARGS="--only snapshot"`), no other page is written.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import plots, sizing
from bench.report import Result, Target, read_json, show, show_targets

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
IMAGES = "images"
_CAPTIONS = {
    "workloads": (plots.THROUGHPUT, "Events a second by workload and program"),
    "costs": (plots.FLOORS, "Events a second of each step alone, and of the drain"),
    "latency": (plots.LATENCY, "Latency over the percentiles, by program and rate"),
}
_VERSIONS = {"nats_server": "nats-server"}
_NOT_SHOWN = {"load_before", "load_after", "cores", "cpu", "memory_gb", "system", "python"}


def results_of(content: Mapping[str, Any]) -> list[Result]:
    """The sections of a run as they were printed."""
    return [
        Result(
            **{name: section[name] for name in ("name", "title", "table", "remarks", "data")},
            targets=[Target(**each) for each in section["targets"]],
        )
        for section in content["sections"].values()
    ]


def generated(content: Mapping[str, Any], images: set[str]) -> str:
    """The Markdown between the markers, headings of the third level; `images` are the names of those drawn."""
    results = results_of(content)
    parts = [machine(content)]
    for result in results:
        parts.append(show(result, level=3).strip())
        image, caption = _CAPTIONS.get(result.name, ("", ""))
        if image in images:
            parts.append(f"![{caption}]({IMAGES}/{image})")
    parts.append(show_targets(results, level=3).strip())
    return "\n\n".join(part for part in parts if part)


def machine(content: Mapping[str, Any]) -> str:
    """Where, with what, and how busy it was."""
    what = content["machine"]
    versions = ", ".join(
        f"{_VERSIONS.get(name, name)} {value}" for name, value in what.items() if name not in _NOT_SHOWN
    )
    seconds = sum(section["data"].get("section_seconds", 0) for section in content["sections"].values())
    short = (
        " It was a short run (`--quick`), which shows that it works and not how fast it is."
        if (content["arguments"].get("quick"))
        else ""
    )
    return (
        f"Machine: {what['cores']} cores ({what['cpu']}), {what['memory_gb']} GB, {what['system']}. Python "
        f"{what['python']}, {versions}. One run of `make bench`, {max(1, round(seconds / 60))} minutes; load average "
        f"before it {what['load_before'][0]}.{short}"
    )


def put(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises ValueError where it has not each of them once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs {BEGIN} and then {END}, each once")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def _sizing(content: Mapping[str, Any]) -> str:
    return sizing.generated(content["sections"]["fan-out"]["data"])


def _snapshots(content: Mapping[str, Any]) -> str:
    results = [each for each in results_of(content) if each.name == "snapshot"]
    return "\n\n".join([*(show(each, level=3).strip() for each in results), show_targets(results, level=3).strip()])


BESIDE: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "fan-out": ("sizing.md", _sizing),
    "snapshot": ("snapshots.md", _snapshots),
}
"""Sections that another page beside the given one shows, and what it shows of them."""


def main() -> None:
    """Write the page, and draw its images beside it."""
    given = [Path(each) for each in sys.argv[1:]]
    if len(given) > 2:
        sys.exit("usage: python -m bench.write_docs [RESULTS.json [PAGE.md]]")
    results, page = (*given, *(Path("bench/results/latest.json"), Path("docs/performance.md"))[len(given) :])
    content = read_json(results)
    for name, (other, text) in BESIDE.items():
        beside = page.parent / other
        if name in content["sections"] and beside.exists():
            beside.write_text(put(beside.read_text(), f"{machine(content)}\n\n{text(content)}"))
            print(f"{beside} written")
    if content["sections"].keys() - BESIDE.keys():
        drawn = plots.draw(content, page.parent / IMAGES)
        page.write_text(put(page.read_text(), generated(content, {path.name for path in drawn})))
        print(f"{page} written, with {', '.join(path.name for path in drawn) or 'no image'}")


if __name__ == "__main__":
    main()
