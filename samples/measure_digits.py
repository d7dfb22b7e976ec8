"""Measures whether the digits sample draws digits.

``python -m samples.measure_digits`` looks up the three nearest real digits of every drawn one and
says how often all three are of one class, how often that happens to real digits (each compared with
the others), and how the classes are spread.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from samples.measure import interval, load, sheet
from samples.progress import say
from samples.train.digits import FOLDER, digit_pictures


def nearest_classes(pictures: np.ndarray, skip: int = 0) -> np.ndarray:
    """Finds the classes of the three nearest real digits.

    Args:
        pictures: float ``[n, 16, 16]``, 0 to 1.
        skip: Neighbours to leave out first: 1 for real digits, which are their own nearest.

    Returns:
        int64 ``[n, 3]``, 0 to 9.
    """
    real, classes = digit_pictures()
    flat, known = pictures.reshape(len(pictures), -1), real.reshape(len(real), -1)
    distances = (flat**2).sum(1)[:, None] - 2 * flat @ known.T + (known**2).sum(1)
    found: np.ndarray = classes[distances.argsort(1)[:, skip : skip + 3]]
    return found


def agreement(neighbours: np.ndarray) -> np.ndarray:
    """Says for which rows all neighbours are of one class.

    Args:
        neighbours: int64 ``[n, 3]``.

    Returns:
        float64 ``[n]``, 0 or 1.
    """
    agreed: np.ndarray = (neighbours == neighbours[:, :1]).all(1).astype(np.float64)
    return agreed


def main() -> None:
    """Draws and says the figures."""
    parser = argparse.ArgumentParser(description="how alike drawn and real digits are")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, default=None, help="where to leave the pictures, PNG")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    drawn = load(options.folder)(
        batch_size=options.pictures,
        num_inference_steps=options.steps,
        generator=torch.Generator().manual_seed(options.seed),
        output_type="np",
    ).images
    neighbours = nearest_classes(drawn[..., 0])
    agreed = agreement(neighbours)
    low, high = interval(agreed)
    real = agreement(nearest_classes(digit_pictures()[0], skip=1)).mean()
    counts = np.bincount(neighbours[:, 0], minlength=10).tolist()
    say(
        f"{options.folder}: three nearest real digits of one class for {agreed.mean():.3f} of the "
        f"drawn (95 % interval {low:.3f} to {high:.3f}) and {real:.3f} of the real digits; "
        f"drawn of classes 0 to 9: {counts}"
    )
    if options.sheet is not None:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(drawn.repeat(3, axis=-1)).save(options.sheet)


if __name__ == "__main__":
    main()
