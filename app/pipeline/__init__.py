"""One watcher's way from change stream to JetStream. Begin with `capture.py`: read, encode, publish, checkpoint."""
