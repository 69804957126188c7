"""How fast, on this machine: `python -m bench`, or `make bench ARGS="--quick"`.

A benchmark, never a test: it says what it measured, and what the targets are, and judges nothing but the number of
messages. It starts a mongod and a nats-server of its own, and runs the service as its users do, as a process.

Read `__main__.py` (what can be asked for), `stage.py` (servers and clients), `contenders.py` (what is measured), then
one section: `drain.py`, `latency.py`, `memory.py`, `watchers.py`, `startup.py`. The figures it leads to are in
`docs/performance.md`.
"""
