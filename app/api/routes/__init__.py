"""The calls, one module for each group of them. They translate: what happens is decided in `control/`."""
