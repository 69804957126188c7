"""What Prometheus reads from `/metrics`. A new metric is declared in `families.py` and counted in `observer.py`."""
