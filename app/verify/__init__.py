"""The parts of `changewire verify`: a second way to read what the capture reads and writes, and their comparison.

Nothing here is the capture's: MongoDB is read by pymongo's change streams, NATS by a pull consumer of nats-py, and
bodies are encoded by pymongo's own `json_util`, so that a mistake of the capture's is not made twice. `comparison.py`
and `writes.py` decide and do no I/O of their own; `history.py` and `streams.py` read; `state.py` knows what the service
has stored; `bodies.py` knows what of an event is history. Not its business: arguments and exit codes
(`app/cli/verify.py`).
"""
