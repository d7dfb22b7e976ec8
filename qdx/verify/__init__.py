"""Verification: the ladder, metrics, gates, reports."""

from __future__ import annotations

from qdx.verify.gates import Gate
from qdx.verify.ladder import verify
from qdx.verify.report import Report

__all__ = ["Gate", "Report", "verify"]
