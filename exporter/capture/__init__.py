"""Capture: a diffusers pipeline folder becomes recorded component calls, and those become graphs."""
