"""Calibration: the real pipeline runs with its graphs in place of its components, and is observed."""

from qdx.calibration.run import Observer, calibrate

__all__ = ["Observer", "calibrate"]
