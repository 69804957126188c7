"""Traces of what the service does with each batch: open, read, publish, checkpoint.

`runs.py` wraps what a run works with: its change stream, its place on a stream, its store of positions. `exporter.py`
sends the spans on with OpenTelemetry. The service imports this package only where tracing is on. Not its business: what
is read and published. No message's body, id, order or place depends on it.
"""
