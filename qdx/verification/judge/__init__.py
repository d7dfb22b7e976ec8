"""Gates, and what they make of the measurements."""
