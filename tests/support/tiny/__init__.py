"""Tiny random-weight pipeline folders, built on the fly for tests and interop checks."""

from __future__ import annotations

from tests.support.tiny.factory import build, load, write_inputs
from tests.support.tiny.families import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "build", "load", "write_inputs"]
