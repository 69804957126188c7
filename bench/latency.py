"""Latency: from an insert's acknowledgement by a majority to the arrival of its message at a subscriber."""

from bench import ends
from bench.contenders import Contender
from bench.procfs import Moment, Span, cores
from bench.program import Program
from bench.report import Result, Target
from bench.stage import Place, Stage
from bench.workload import BYTES

USUAL_RATE = 100
TARGETS = {USUAL_RATE: {"p50": 1.4, "p99": 3.1}, 1_000: {"p99": 10.0}, 5_000: {"p99": 20.0}}
"""In ms, by inserts a second."""
MOST_EVENTS = 75_000
FLOOR_SECONDS = 10

_REMARKS = (
    f"Documents of {BYTES:,} bytes; the arrival is that of a stored message, at a push consumer.",
    "mongod acknowledges once a majority has the insert, which is when a change stream may show it.",
    f"Beyond {ends.SMALL_RATE:,}/s {ends.WRITERS} write at once, beyond {ends.MOST_SINGLY:,}/s {ends.GROUP} at a time.",
)


async def measure(
    stage: Stage, contenders: list[Contender], *, rates: list[int], seconds: float, peer_rates: list[int]
) -> Result:
    """Measure Changewire at `rates`, the others at `peer_rates`. Raises Incomplete where an event arrives not once."""
    head = ["ms", "asked/s", "written/s", "inserts", *ends.PERCENTILES, "service CPU", "harness CPU"]
    result = Result("latency", "Latency from an acknowledged insert to a JetStream subscriber", [head])
    count = int(USUAL_RATE * min(FLOOR_SECONDS, seconds))
    note(result, "no service: publish to arrival", USUAL_RATE, await ends.floor(stage, count, USUAL_RATE), None)
    for contender in contenders:
        place = stage.place(contender.name)
        await contender.prepare(stage, [place])
        async with contender.start(stage, [place]) as program:
            await contender.running(stage, [place], program)
            for rate in rates if contender.name == "changewire" else peer_rates:
                written, span = await _run(stage, place, program, rate, count_for(rate, seconds))
                figures = note(result, contender.name, rate, written, span.used["service"] / span.seconds)
                result.data["runs"][-1]["others_share"] = span.others
                print(
                    f"  {contender.name} at {rate}/s: p50 {figures['p50']:.2f}, p99 {figures['p99']:.1f} ms", flush=True
                )
                if contender.name == "changewire":
                    for name, most in TARGETS.get(rate, {}).items():
                        figure = f"{figures[name]:.2f} ms"
                        what = f"latency at {rate:,}/s, {name}"
                        result.targets.append(Target(what, figure, f"≤ {most:g} ms", figures[name] <= most))
        await stage.clear([place])
    result.remarks = [
        *_REMARKS,
        f"CPU in parts of one of {cores()} cores; writer and listener, the harness, share them.",
    ]
    return result


async def _run(stage: Stage, place: Place, program: Program, rate: int, count: int) -> tuple[ends.Written, Span]:
    moments: list[Moment] = []
    written = await ends.measure(stage, [place], count, rate, begun=lambda: moments.append(stage.moment(program.pid)))
    return written, stage.moment(program.pid).since(moments[0])


def count_for(rate: int, seconds: float) -> int:
    """How many inserts: longer where they are few, so that the tail means something, and not endlessly many."""
    return int(min(MOST_EVENTS, rate * seconds * (2 if rate < USUAL_RATE else 1)))


def note(result: Result, name: str, rate: int, written: ends.Written, service: float | None) -> dict[str, float]:
    """Add a run to the table and to the data; return its percentiles."""
    figures = ends.percentiles(written.latencies)
    cpu = "" if service is None else f"{service:.0%}"
    result.table.append(
        [
            name,
            f"{rate:,}",
            f"{written.rate:,.0f}",
            f"{len(written.latencies):,}",
            *ends.row(written.latencies),
            cpu,
            f"{written.harness_cpu:.0%}",
        ]
    )
    result.data.setdefault("runs", []).append(
        {
            "contender": name,
            "rate": rate,
            "written_per_second": written.rate,
            "count": len(written.latencies),
            **figures,
            "service_cpu": service,
            "harness_cpu": written.harness_cpu,
            "distribution": ends.distribution(written.latencies),
        }
    )
    return figures
