"""Finished pictures of free runs against those of the float model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.analyze.noise import relative_noise
from qdx.analyze.trajectory_data import Picture
from qdx.exporter.measure.metrics import psnr_db, ssim

if TYPE_CHECKING:
    from qdx.analyze.course import FloatCourse, FreeRun

__all__ = ["FIGURES", "figures_of", "mean_picture"]

FIGURES: Final = ("latents_noise", "psnr_db", "ssim")
"""Of one free run: squared error of its final latents over their square, and of its picture."""
_PICTURES: Final = ("images", "frames")
_RANK: Final = 4


def figures_of(course: FloatCourse, run: FreeRun) -> dict[str, float | None]:
    """What a free run came to; null where there is no picture, or what is not finite."""
    found = {"latents_noise": relative_noise(course.latents[-1], run.latents[-1])}
    names = [one for one in _PICTURES if one in course.products and one in run.products]
    for name in names[:1]:
        one, other = (_pictures(side.products[name]) for side in (course, run))
        found |= {"psnr_db": psnr_db(one, other), "ssim": ssim(one, other)}
    return {name: _finite(found.get(name, math.nan)) for name in FIGURES}


def mean_picture(rows: Sequence[dict[str, Any]]) -> Picture:
    """The means over runs."""
    noise = mean_or_none(row["latents_noise"] for row in rows)
    return Picture(
        latents_sqnr_db=-10 * math.log10(noise) if noise else None,
        psnr_db=mean_or_none(row["psnr_db"] for row in rows),
        ssim=mean_or_none(row["ssim"] for row in rows),
    )


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """The mean; None where one is missing, or there are none."""
    known = list(values)
    if not known or any(one is None for one in known):
        return None
    return math.fsum(one for one in known if one is not None) / len(known)


def _pictures(values: Any) -> torch.Tensor:
    found = torch.from_numpy(values)
    while found.dim() < _RANK:
        found = found[None]
    return found.reshape(-1, *found.shape[-3:])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
