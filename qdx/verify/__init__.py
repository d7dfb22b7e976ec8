"""The ladder, metrics, gates and reports."""
