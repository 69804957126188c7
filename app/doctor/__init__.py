"""The examination behind `changewire doctor`."""
