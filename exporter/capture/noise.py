"""Noise in the place of pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["noise_image"]


def noise_image(width: int, height: int) -> Image.Image:
    """A seeded noise picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
