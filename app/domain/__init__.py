"""Everything Changewire decides: values and pure functions.

Standard library only: no I/O, no clock, no random, no vendor. `position.py` is the protocol; `watcher.py` is what a
user describes; `errors.py` lists everything that can go wrong.
"""
