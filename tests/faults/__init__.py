"""Breaks all that Changewire leans on, under load, and asks `changewire verify` what the streams hold afterwards.

`make faults` runs a seeded schedule: a MongoDB replica set of three, a NATS cluster of three, instances with one
registry, writers on several collections. It does so for three forms: a watcher for each way to publish (`testbed.py`),
forty watchers on shared change streams (`crowd.py`), and three instances that share twenty (`instances.py`). Its
business is the promise (nothing lost, doubled, reordered or altered) and how long it takes until changes flow again;
not throughput, and no moment inside the service (`tests/traps.py` has traps for those). Read `catalogue.py` for what is
broken, then what it is done to.
"""
