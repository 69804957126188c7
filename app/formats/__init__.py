"""A change event as the body of a message: relaxed Extended JSON, in Python and natively."""
