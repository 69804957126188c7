"""Changewire: every change in MongoDB, once and in order, on NATS JetStream.

A *watcher* follows one collection's change stream and publishes each change to a JetStream stream.
`app/pipeline/capture.py` the straight line every change takes: read, encode, publish, checkpoint. What to do with
position and fence is decided by pure functions in `app/domain/position.py`; servers are reached through the ports in
`app/ports/__init__.py` only.

Reading order: `pipeline/capture.py`, `pipeline/publisher.py`, `domain/position.py`, `app/ports`,
`control/registry.py`, `control/reconciler.py`, `control/watcher_task.py`, then `mongodb/` and `jetstream/` for what the
servers really answer, `api/` for HTTP, and `main.py` for how all of it is put together.
"""

__version__: str


def __getattr__(name: str) -> object:
    """`__version__`, looked up when it is asked for: that takes as long as Python needs to start."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("changewire")
    except PackageNotFoundError:  # running from a checkout that was never installed
        return "0.0.0"
