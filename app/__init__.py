"""Changewire: every change in MongoDB, once and in order, on NATS JetStream.

A *watcher* follows one collection's change stream and publishes each change to a JetStream stream. Every change takes
the same four steps, in `pipeline/capture.py`: read, encode, publish, checkpoint. Pure functions in `domain/` decide
about position and fence. `pipeline` and `control` reach the servers only through the ports in `ports/`.

The packages, from the outside in. A package imports only from those below it; `pyproject.toml` has the rules, and
`make check` checks them.

    cli                          the commands, one module each
    doctor                       examines both servers and each watcher's place on them
    main.py                      puts the service together
    api                          HTTP: routes, schemas, problems, middleware, page
    control                      all watchers: registry, reconciler, watcher task, health
    pipeline                     one watcher: capture, publisher, checkpointer, standby
    mongodb, jetstream, metrics  everything that speaks to MongoDB, to NATS, to Prometheus
    tracing                      spans by OpenTelemetry, where they are asked for
    config                       settings, connector.yaml, API tokens, logging
    formats                      a change event as the bytes of a message
    ports                        what control and pipeline need from the servers, as protocols
    domain                       values and decisions: the standard library only, no I/O, no clock

Beside them, with ways of their own to the servers: `verify` compares a stream with MongoDB's history, and `devservers`
starts mongod and nats-server from wheels.

Five answers to begin with:

- An event becomes bytes in `formats/extended_json.py`, or in `native/src/json.rs` where that was built.
- The fence is decided in `domain/opening.py` and `domain/read_back.py`, and held by `pipeline/ledger.py`.
- `control/watcher_task.py` tries a watcher again after an error that passes. A FAILED one waits for a person, unless
  it was refused because of another watcher: `control/reconciler.py` starts it when the conflict is gone.
- A resume token is stored in `mongodb/checkpoint_store.py`, when `pipeline/checkpointer.py` says so.
- A new metric is declared in `metrics/families.py` and counted in `metrics/observer.py`.

Every term is in `docs/glossary.md`. Read first: `pipeline/capture.py`, `domain/position.py`, `pipeline/publisher.py`.
"""

__version__: str


def __getattr__(name: str) -> object:
    """`__version__`, looked up when it is asked for: that takes as long as Python needs to start."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("changewire")
    except PackageNotFoundError:  # running from a checkout that was never installed, as `make demo` does
        import tomllib
        from pathlib import Path

        project = Path(__file__).parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "0.0.0"
