"""Rules that a model for TensorRT must keep: named, with a severity, checked without TensorRT."""

from __future__ import annotations

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Finding, Rule, Severity
from qdx.backends.tensorrt.lint.table import RULES, lint

__all__ = ["RULES", "DeviceFacts", "Finding", "Rule", "Severity", "lint"]
