"""Structural similarity of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.exporter.measure.metrics.metric import Metric
from qdx.exporter.measure.metrics.tensors import in_float64

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SSIM", "ssim"]

# Wang, Bovik, Sheikh, Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
# Structural Similarity": a Gaussian window of this standard deviation, in pixels.
_SIGMA: Final = 1.5
_ROWS: Final = 64
"""Of a picture that are measured at a time."""


def ssim(reference: Tensor, output: Tensor) -> float:
    """Structural similarity, the mean over pictures, channels and pixels.

    Pictures of less than six pixels on a side get a narrower window, since the usual one does not
    fit into them.

    Args:
        reference: Pictures of shape [batch, height, width, channels], in [0, 1].
        output: The same shape.

    Returns:
        At most 1, which equal pictures have; NaN for bad data.
    """
    return in_float64(reference, output, _ssim)


def _ssim(reference: Tensor, output: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    shortest = min(reference.shape[1:3])
    # torchmetrics cuts the Gaussian at 3.5 sigma and mirrors as many pixels, which must be there.
    sigma = min(_SIGMA, max(0.1, (shortest - 1) / 3.5))
    one, other = output.movedim(-1, 1), reference.movedim(-1, 1)
    margin = int(3.5 * sigma + 0.5)
    height = one.shape[2]
    total = 0.0
    # In one piece torch lays out 121 copies of the picture, which are gigabytes at 1024 x 1024. Strips that overlap by the
    # window have the same values where they do not end.
    for start in range(0, height, _ROWS):
        stop = min(start + _ROWS, height)
        first, last = max(0, start - margin), min(height, stop + margin)
        if height - last <= margin:  # what is left is too low to be mirrored
            stop = last = height
        _, values = structural_similarity_index_measure(
            one[:, :, first:last],
            other[:, :, first:last],
            sigma=sigma,
            data_range=1.0,
            return_full_image=True,
        )
        total += float(values[:, :, start - first : stop - first].sum())
        if stop == height:
            break
    return total / one.numel()


SSIM: Final = Metric(
    "ssim",
    label="SSIM",
    unit="",
    better="more",
    compute=ssim,
    levels=frozenset({"pipeline"}),
    meaning="structural similarity, from 0 to 1",
    gate_range=(0.0, 1.0),
    kinds=frozenset({"pictures"}),
    twice=lambda value: 2 * value - 1,  # twice the distance from 1
)
