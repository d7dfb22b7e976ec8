"""End to end: what the artifact's pipeline makes, against what PyTorch makes of the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from qdx.exporter.errors import QdxError, UsageError
from qdx.exporter.measure.metrics import METRICS, OutputKind, finite_or_none, measure, metrics_of
from qdx.runtime.generate import Products, generate
from qdx.verification.measure.components import brief

__all__ = [
    "OutputResult",
    "PipelineResult",
    "attempt",
    "compare_products",
    "pictures_of",
]

# Fields of diffusers' pipeline outputs. Pictures and frames are in [0, 1], channels last; sound is in
# [-1, 1].
_KINDS: Final[Mapping[str, OutputKind]] = {
    "images": "pictures",
    "frames": "pictures",
    "audios": "sound",
    "audio": "sound",
}


@dataclass(frozen=True)
class OutputResult:
    """One output of the pipeline against the reference.

    Attributes:
        kind: What it is.
        values: Of the metrics that are defined for its kind, by name; NaN for bad data.
    """

    kind: OutputKind
    values: Mapping[str, float]


@dataclass(frozen=True)
class PipelineResult:
    """The whole pipeline against the reference.

    Attributes:
        outputs: By field of the pipeline's output.
        error: Why an output is missing or cannot be compared; empty otherwise.
        reference: What PyTorch made.
        artifact: What the artifact made; empty if it made nothing.
    """

    outputs: dict[str, OutputResult]
    error: str = ""
    reference: Products = field(default_factory=dict, repr=False)
    artifact: Products = field(default_factory=dict, repr=False)

    def value(self, name: str) -> float | None:
        """The worst of a metric over the outputs that have it; NaN where one is bad or where there is no output.

        Returns:
            None where no output is of a kind for which the metric is defined.
        """
        found = [result.values[name] for result in self.outputs.values() if name in result.values]
        return METRICS[name].worst(found) if found or not self.outputs else None

    @property
    def psnr_db(self) -> float | None:
        """Peak signal-to-noise ratio."""
        return self.value("psnr_db")

    @property
    def ssim(self) -> float | None:
        """Structural similarity; None if the pipeline makes no pictures."""
        return self.value("ssim")

    def to_json(self) -> dict[str, Any]:
        """The results as plain JSON data; what is not a number, or not defined, becomes null."""
        names = [metric.name for metric in metrics_of("pipeline")]
        return {
            **{name: finite_or_none(self.value(name)) for name in names},
            "error": self.error,
            "outputs": {
                output: {
                    "kind": result.kind,
                    **{name: finite_or_none(result.values.get(name)) for name in names},
                }
                for output, result in self.outputs.items()
            },
        }


def attempt(pipeline: Any, call: dict[str, Any], *, seed: int) -> tuple[Products, str]:
    """As `generate` for a pipeline under test: what it made, and what it failed with.

    A call that the reference took and the artifact refuses counts against the artifact; other
    errors of qdx are raised.
    """
    try:
        return generate(pipeline, call, seed=seed), ""
    except QdxError as error:
        if not isinstance(error, UsageError):
            raise
        return {}, brief(error)
    except Exception as error:  # noqa: BLE001  # the pipeline's Python and the runtime may raise anything
        return {}, brief(error)


def compare_products(reference: Products, artifact: Products, error: str = "") -> PipelineResult:
    """Compares every output of the pipeline; one that is missing counts as NaN."""
    outputs: dict[str, OutputResult] = {}
    for name, one in reference.items():
        other = artifact.get(name)
        if other is None:
            error = error or f"the artifact's pipeline has no output `{name}`"
        elif other.shape != one.shape:
            error = f"`{name}` has shape {list(other.shape)}, expected {list(one.shape)}"
        elif not np.isfinite(other).all():
            error = f"`{name}`: {int((~np.isfinite(other)).sum())} values are not finite"
        outputs[name] = _compare(name, one, other)
    if not outputs:
        error = error or "the reference pipeline made nothing that can be compared"
    return PipelineResult(outputs, error, reference, artifact)


def _compare(
    name: str, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any] | None
) -> OutputResult:
    kind = _KINDS.get(name, "values")
    metrics = [metric for metric in metrics_of("pipeline") if kind in metric.kinds]
    reference = torch.from_numpy(one)
    output = torch.full_like(reference, torch.nan) if other is None else torch.from_numpy(other)
    if kind == "pictures":
        if output.shape == reference.shape:
            reference, output = (
                torch.from_numpy(pictures_of(side.numpy())) for side in (reference, output)
            )
        return OutputResult(kind, measure(metrics, reference, output, peak=1.0))
    # Of values whose range nobody declares, the range that the reference takes.
    peak = 2.0 if kind == "sound" else float(reference.max() - reference.min()) or 1.0
    return OutputResult(kind, measure(metrics, reference, output, peak=peak))


def pictures_of(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pictures or videos of any batch as [batch, height, width, channels]."""
    while values.ndim < 4:
        values = values[np.newaxis]
    return values.reshape(-1, *values.shape[-3:])
