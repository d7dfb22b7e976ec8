"""Measures what exporting costs a text-to-image sample: slot accuracy of bundles against float PyTorch.

``python -m samples.measure_bundles samples/shapes out/w8a8-openvino out/w8a8-onnxruntime --captions 200``

Every caption is drawn with the same noise by all, so that figures are compared caption by caption.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

import qdx
from samples.measure import BATCH, draw, interval, load
from samples.progress import Steps, say
from samples.reader import read, slot_accuracy
from samples.scenes import held_out_captions


@dataclass(frozen=True)
class Scores:
    """What the reader says of pictures.

    Attributes:
        slots: Share of what each caption says that is there, float64 ``[captions]``.
        fits: Mean overlap of the outlines found in each picture with the ideal shapes, float64
            ``[captions]``; 0 where nothing is found.
        pictures: The pictures, float32 ``[captions, 64, 64, 3]``, 0 to 1.
    """

    slots: np.ndarray
    fits: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Loss:
    """A bundle against float PyTorch, means over the captions.

    Attributes:
        name: Of the bundle.
        float_accuracy: Slot accuracy of float PyTorch.
        accuracy: Slot accuracy of the bundle.
        difference: Bundle less float.
        low: Lower end of the difference's 95 % interval, from resampled captions.
        high: Upper end.
        float_fit: Fit of the outlines of float PyTorch.
        fit: Fit of the bundle's.
        psnr_db: Of the bundle's pictures against those of float PyTorch.
    """

    name: str
    float_accuracy: float
    accuracy: float
    difference: float
    low: float
    high: float
    float_fit: float
    fit: float
    psnr_db: float


def score(
    name: str,
    pipeline: DiffusionPipeline,
    captions: list[str],
    *,
    steps: int,
    guidance: float,
    batch: int = 1,
    first_seed: int = 0,
    **options: Any,
) -> Scores:
    """Draws captions and reads the pictures.

    Args:
        name: What is said before the count of calls.
        pipeline: A text-to-image pipeline of 64x64 pictures.
        captions: What to draw; caption i has the noise of seed ``first_seed + i``.
        steps: Denoising steps.
        guidance: Guidance scale.
        batch: Captions of one call: those that a bundle of fixed shapes was exported with.
        first_seed: Seed of the first picture.
        **options: More arguments of the pipeline's call.

    Returns:
        The scores in the order of the captions.
    """
    pictures = []
    for number in Steps(name, -(-len(captions) // batch)):
        start = number * batch
        part = captions[start : start + batch]
        pictures.append(draw(pipeline, part, steps, guidance, first_seed + start, **options))
    drawn = np.concatenate(pictures)
    slots = [slot_accuracy(picture, c) for picture, c in zip(drawn, captions, strict=True)]
    fits = [[thing.fit for thing in read(picture)] for picture in drawn]
    means = [float(np.mean(found)) if found else 0.0 for found in fits]
    return Scores(np.array(slots), np.array(means), drawn)


def compare(name: str, reference: Scores, bundle: Scores) -> Loss:
    """Compares scores of the same captions and noise.

    Args:
        name: Of the bundle.
        reference: Of float PyTorch.
        bundle: Of the bundle.

    Returns:
        The means, and the interval of their difference.
    """
    differences = bundle.slots - reference.slots
    low, high = interval(differences)
    error = float(np.square(bundle.pictures.astype(float) - reference.pictures).mean())
    return Loss(
        name,
        float(reference.slots.mean()),
        float(bundle.slots.mean()),
        float(differences.mean()),
        low,
        high,
        float(reference.fits.mean()),
        float(bundle.fits.mean()),
        float(-10 * np.log10(max(error, 1e-20))),
    )


def main() -> None:
    """Draws with all, reads and says the figures."""
    parser = argparse.ArgumentParser(description="slot accuracy of bundles against float PyTorch")
    parser.add_argument("folder", type=Path, help="the sample that the bundles were exported from")
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=1, help="captions of the bundles' calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-sequence-length", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    more: dict[str, Any] = {
        "steps": options.steps,
        "guidance": options.guidance,
        "first_seed": options.seed,
    }
    if options.max_sequence_length is not None:
        more["max_sequence_length"] = options.max_sequence_length
    captions = [str(caption) for caption in held_out_captions()[: options.captions]]

    reference = score("float", load(options.folder), captions, batch=BATCH, **more)
    losses = []
    for path in options.bundles:
        pipeline = qdx.open(path, threads=options.threads)
        pipeline.set_progress_bar_config(disable=True)
        bundle = score(path.name, pipeline, captions, batch=options.batch, **more)
        loss = compare(path.name, reference, bundle)
        losses.append(loss)
        say(
            f"{path}: slot accuracy {loss.accuracy:.4f}, float {loss.float_accuracy:.4f}, difference "
            f"{100 * loss.difference:+.2f} points (95 % interval {100 * loss.low:+.2f} to {100 * loss.high:+.2f}), "
            f"fit {loss.fit:.4f}, float {loss.float_fit:.4f}, pictures {loss.psnr_db:.1f} dB, {len(captions)} captions"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(loss) for loss in losses], indent=2) + "\n")


if __name__ == "__main__":
    main()
