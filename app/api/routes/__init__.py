"""The calls, one module for each group. They only translate; `control/` decides."""
