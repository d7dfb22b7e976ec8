"""Calibration: the real pipeline runs with its graphs in place of its components, and is observed."""
