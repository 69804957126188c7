"""The parts of `changewire verify`: a second way to read what the service reads and writes, and their comparison.

It shares no reading, publishing or encoding code with the service, only values of `domain/` and the settings:
pymongo's change streams read MongoDB, a pull consumer of nats-py reads NATS, and pymongo's own `json_util` encodes
bodies. So an error of the service is not repeated here. `comparison.py` and `writes.py` decide, without I/O;
`history.py` and `streams.py` read; `state.py` reads what the service has stored; `bodies.py` knows which parts of an
event never change. `app/cli/verify.py` has the arguments and exit codes.
"""
