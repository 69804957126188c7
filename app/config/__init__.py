"""What the service is told from outside: settings, connector.yaml, addresses, key files, API tokens, logging."""
