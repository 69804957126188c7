"""What Changewire decides, without doing any of it.

Standard library only: no I/O, no clock, no random, no vendor. Everything here is a value or a pure function and is
tested as such. Not its business: talking to servers (`mongodb/`, `jetstream/`), running tasks
(`control/watcher_task.py`).
"""
