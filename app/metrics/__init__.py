"""What Prometheus reads from `/metrics`. A new metric is declared and counted in `observer.py`."""
