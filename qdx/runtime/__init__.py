"""A bundle opened as a diffusers pipeline."""
