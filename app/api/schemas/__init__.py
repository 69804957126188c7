"""The shapes of requests and answers, as OpenAPI shows them. A call's shapes are in the module of the call's name.

    watchers.py       /watchers, /watchers/{name}
    positions.py      /watchers/{name}/token
    status.py         /watchers/{name}/status, health, lag and history, and the probes
    dead_letters.py   /watchers/{name}/dead-letters
    streams.py        /watchers/{name}/stream and messages
    base.py           what all shapes have in common, and how an answer is written
    values.py         values of a request that are checked one by one

Names and defaults are the contract's; the defaults themselves live in `domain/watcher.py`, and a test compares.
"""
