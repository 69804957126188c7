"""Everything that speaks to NATS: the sink, the dead-letter queue and the stream browser, on nats-py.

Each class speaks to a real server and raises the errors of `domain/errors.py` (`errors.py` translates); what to do
about them is decided in `pipeline/` and `control/`. `account.py` is the way in.
"""
