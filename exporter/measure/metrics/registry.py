"""The metrics that are measured, in the order of tables: a new one is a file beside this and a line here."""

from __future__ import annotations

from typing import Final

from qdx.exporter.measure.metrics.angle import COSINE
from qdx.exporter.measure.metrics.largest_error import MAX_ABS_ERR
from qdx.exporter.measure.metrics.metric import Level, Metric
from qdx.exporter.measure.metrics.psnr import PSNR
from qdx.exporter.measure.metrics.sqnr import SQNR
from qdx.exporter.measure.metrics.structure import SSIM

__all__ = ["METRICS", "metrics_of"]

METRICS: Final[dict[str, Metric]] = {
    metric.name: metric for metric in (SQNR, PSNR, COSINE, MAX_ABS_ERR, SSIM)
}


def metrics_of(level: Level) -> tuple[Metric, ...]:
    """The metrics that are computed at a level, in order."""
    return tuple(metric for metric in METRICS.values() if level in metric.levels)
