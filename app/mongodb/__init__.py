"""Everything that speaks to MongoDB: the ports of a change source, a checkpoint store and a watcher store, on motor.

Each class speaks to a real server and raises the errors of `domain/errors.py`; what to do about them is decided in
`pipeline/` and `control/`.
"""
