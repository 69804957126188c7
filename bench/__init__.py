"""How fast, on this machine: `python -m bench`, or `make bench ARGS="--quick"`.

A benchmark, never a test: it says what it measured, and what the targets are, and judges nothing but whether the
streams hold each change once. It starts a mongod and a nats-server of its own, and runs all programs as users do.

Read `__main__.py` (what can be asked for), `stage.py` (servers and clients), `contenders.py` and `others.py` (who is
measured), `workload.py` (what is written), then one section: `drain.py`, `workloads.py` and `replicas.py` (on
`backlog.py`), `floors.py` (on `floor.py`) and `costs.py`, `latency.py` and `watchers.py` (on `ends.py`), `memory.py`,
`startup.py`, `fan_out.py` (on `fleet.py`), `instances.py` (on `members.py` and `traffic.py`). `write_docs.py`,
`sizing.py` and `plots.py` make of a run's file the measured parts of `docs/performance.md` and `docs/sizing.md`.
"""
