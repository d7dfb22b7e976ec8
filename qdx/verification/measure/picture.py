"""End to end: what the artifact's pipeline makes, against what PyTorch makes of the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import torch

from qdx.exporter.errors import QdxError, UsageError
from qdx.exporter.measure import metrics
from qdx.runtime.generate import Products, generate
from qdx.verification.measure.components import brief

__all__ = [
    "OutputResult",
    "PipelineResult",
    "attempt",
    "compare_products",
    "pictures_of",
]

Kind = Literal["pictures", "sound", "values"]

# Fields of diffusers' pipeline outputs. Pictures and frames are in [0, 1], channels last; sound is in
# [-1, 1].
_KINDS: Final[Mapping[str, Kind]] = {
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
        psnr_db: Peak signal-to-noise ratio, in decibels; NaN for bad data.
        ssim: Structural similarity; None for what is no picture.
    """

    kind: Kind
    psnr_db: float
    ssim: float | None


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

    @property
    def psnr_db(self) -> float:
        """The least over the outputs; NaN where one is bad or where there is none."""
        return metrics.worst_of(result.psnr_db for result in self.outputs.values())

    @property
    def ssim(self) -> float | None:
        """The least over the pictures; NaN where one is bad; None if the pipeline makes no pictures."""
        found = [result.ssim for result in self.outputs.values() if result.ssim is not None]
        return metrics.worst_of(found) if found or not self.outputs else None


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
    reference = torch.from_numpy(one)
    output = torch.full_like(reference, torch.nan) if other is None else torch.from_numpy(other)
    if kind == "pictures":
        return OutputResult(
            kind,
            metrics.psnr_db(reference, output),
            metrics.ssim(
                *(torch.from_numpy(pictures_of(side.numpy())) for side in (reference, output))
            ),
        )
    # Of values whose range nobody declares, the range that the reference takes.
    peak = 2.0 if kind == "sound" else float(reference.max() - reference.min()) or 1.0
    return OutputResult(kind, metrics.psnr_db(reference, output, peak=peak), None)


def pictures_of(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pictures or videos of any batch as [batch, height, width, channels]."""
    while values.ndim < 4:
        values = values[np.newaxis]
    return values.reshape(-1, *values.shape[-3:])
