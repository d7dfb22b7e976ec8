"""Distances between a reference and an artifact's output.

Every metric is computed in float64 and has one answer to bad data: NaN, which no gate accepts. Bad
data is a value that is not finite on either side, a difference in shape (nothing is broadcast), or
no value at all. A metric is a file of its own and a line of the registry, from which reports, tables, pages, gates and the
plan's schema take it. Importing this imports no torch.
"""

from __future__ import annotations

from qdx.exporter.measure.metrics.angle import cosine
from qdx.exporter.measure.metrics.largest_error import max_abs_err
from qdx.exporter.measure.metrics.metric import Level, Metric, OutputKind, measure
from qdx.exporter.measure.metrics.psnr import psnr_db
from qdx.exporter.measure.metrics.registry import METRICS, metrics_of
from qdx.exporter.measure.metrics.sqnr import sqnr_db
from qdx.exporter.measure.metrics.structure import ssim
from qdx.exporter.measure.metrics.summaries import finite_or_none, or_least, worst_of
from qdx.exporter.measure.metrics.tensors import DB_LIMIT

__all__ = [
    "DB_LIMIT",
    "METRICS",
    "Level",
    "Metric",
    "OutputKind",
    "cosine",
    "finite_or_none",
    "max_abs_err",
    "measure",
    "metrics_of",
    "or_least",
    "psnr_db",
    "sqnr_db",
    "ssim",
    "worst_of",
]
