"""What the service is told from outside: settings, connector.yaml, addresses, key files, API tokens, logging.

A setting is declared in `settings.py`, and its check is in `checks.py`.
"""
