"""The vendors' side of `app/ports.py`: each adapter speaks to one real server and raises our own errors.

Not its business: deciding what to do about them.
"""
