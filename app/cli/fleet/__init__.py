"""The demo with many watchers, `changewire demo --watchers N`: what they are, their traffic, and what goes wrong.

`plan` says which watchers there are, `writers` make the changes, `story` breaks things on purpose, `summary` puts what
happens into lines, `hints` says what to try, `check` compares the streams with what was written, and `run` plays all of
it. Not its business: servers, the service and signals (`app/cli/demo.py`).
"""
