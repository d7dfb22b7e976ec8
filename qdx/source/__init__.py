"""The pipeline folder: traced, its schedule, its identity."""
