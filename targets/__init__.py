"""Hardware profiles as data, and their loader."""
