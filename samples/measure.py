"""Measures how well a text-to-image sample draws captions that it was never trained on.

``python -m samples.measure samples/shapes --captions 200 --steps 25 --guidance 4``
"""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from samples.progress import Steps, say
from samples.reader import read, slot_accuracy
from samples.scenes import held_out_captions

BATCH = 25
RESAMPLINGS = 2000


def load(folder: Path) -> DiffusionPipeline:
    """Loads a sample in fp32, with None for every part that its index names as absent.

    Args:
        folder: A pipeline's folder.

    Returns:
        The pipeline, without a progress bar of its own.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    absent = {name: None for name, value in index.items() if value == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True, **absent
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: DiffusionPipeline,
    captions: list[str],
    steps: int,
    guidance: float,
    first_seed: int = 0,
    **options: Any,
) -> np.ndarray:
    """Draws one picture per caption in one batch.

    Args:
        pipeline: A text-to-image pipeline of 64x64 pictures.
        captions: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        first_seed: Seed of the first picture; the next ones count up.
        **options: More arguments of the pipeline's call.

    Returns:
        float32 ``[len(captions), 64, 64, 3]``, 0 to 1.
    """
    seeds = range(first_seed, first_seed + len(captions))
    drawn: np.ndarray = pipeline(
        captions,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        **options,
    ).images
    return drawn


def mean_accuracy(
    pipeline: DiffusionPipeline, captions: list[str], steps: int, guidance: float, **options: Any
) -> float:
    """Draws captions in one batch and reads the pictures.

    Args:
        pipeline: A text-to-image pipeline of 64x64 pictures.
        captions: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        **options: More arguments of the pipeline's call.

    Returns:
        Mean slot accuracy, 0 to 1.
    """
    pictures = draw(pipeline, captions, steps, guidance, **options)
    return float(np.mean([slot_accuracy(p, c) for p, c in zip(pictures, captions, strict=True)]))


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstraps the mean.

    Args:
        values: float ``[n]``.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end of the 95 % interval.
    """
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (RESAMPLINGS, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def sheet(pictures: np.ndarray, columns: int = 10) -> Image.Image:
    """Lays pictures out side by side.

    Args:
        pictures: float ``[n, 64, 64, 3]``, 0 to 1.
        columns: Pictures in a row.

    Returns:
        One picture of all full rows.
    """
    rows = max(1, len(pictures) // columns)
    columns = min(columns, len(pictures))
    kept = (pictures[: rows * columns].clip(0, 1) * 255).round().astype(np.uint8)
    grid = kept.reshape(rows, columns, *kept.shape[1:]).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * kept.shape[1], columns * kept.shape[2], 3))


def main() -> None:
    """Draws, reads and says the figures."""
    parser = argparse.ArgumentParser(description="slot accuracy on held-out captions")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-sequence-length", type=int, default=None)
    parser.add_argument("--sheet", type=Path, default=None, help="where to leave the pictures, PNG")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.folder)
    more = {}
    if options.max_sequence_length is not None:
        if "max_sequence_length" not in inspect.signature(pipeline.__call__).parameters:
            parser.error("this pipeline knows no --max-sequence-length")
        more["max_sequence_length"] = options.max_sequence_length
    captions = [str(caption) for caption in held_out_captions()[: options.captions]]
    pictures, scores, fits = [], [], []
    progress = Steps("measure", -(-len(captions) // BATCH))
    for number in progress:
        part = captions[number * BATCH : (number + 1) * BATCH]
        seed = options.seed + number * BATCH
        drawn = draw(pipeline, part, options.steps, options.guidance, seed, **more)
        pictures.append(drawn)
        scores += [slot_accuracy(p, c) for p, c in zip(drawn, part, strict=True)]
        fits += [thing.fit for picture in drawn for thing in read(picture)]
        progress.note = f"slot accuracy {np.mean(scores):.4f}"
    values = np.array(scores)
    low, high = interval(values)
    say(
        f"{options.folder}: slot accuracy {values.mean():.4f} (95 % interval {low:.4f} to "
        f"{high:.4f}), {np.mean(values == 1):.3f} of pictures wholly right, outlines fit to "
        f"{np.mean(fits):.4f}, {len(values)} held-out captions, {options.steps} steps, guidance {options.guidance}"
    )
    if options.sheet is not None:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(np.concatenate(pictures)).save(options.sheet)


if __name__ == "__main__":
    main()
