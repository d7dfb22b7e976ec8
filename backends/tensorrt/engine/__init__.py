"""Engines: building, recording, loading, running and reading them."""
