"""The plan as data: what it may say, its faults, and reading it."""
