"""Scales by timestep: one range for all timesteps against one for each part of the schedule, at 4, 5 and 8 bits.

    python -m benchmarks.timestep_groups --work build/timestep_groups

Draws digits with float PyTorch and with `samples/digits` quantized by the plans below, all with the same noise.
Everything is measured on final pictures of free runs, so errors of all steps add up as they do in use.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

import qdx
from qdx.bundle.reader import read_bundle
from qdx.exporter.plan.schema.load import load_plan
from qdx.runtime.pipeline import attach, open_methods, open_skeleton
from qdx.verification.measure.intervals import Interval, bootstrap
from qdx.verification.measure.quantized import as_method, quantized_model
from samples.measure import load
from samples.measure_digits import agreement, nearest_classes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from numpy.typing import NDArray

    from qdx.bundle.reader import Bundle

    Pictures = NDArray[np.float64]

ROOT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = ROOT / "samples" / "digits"
PLANS: Final = ROOT / "samples" / "plans"
PAIRS: Final = {bits: (f"digits-a{bits}-static", f"digits-a{bits}-groups") for bits in (4, 5, 8)}
"""Plans by bits of the inputs: one range, and ranges by timestep."""
FIRST_SEED: Final = 1000
"""Seed of the first batch; those of calibration begin at 0."""
_QUANTIZED_IN: Final = "openvino"
"""The target whose placement the graphs in PyTorch have."""


@dataclass(frozen=True)
class Settings:
    """How much is drawn.

    Attributes:
        pictures: A multiple of `batch`.
        batch: Pictures of one call.
        steps: Of the scheduler.
    """

    pictures: int = 200
    batch: int = 50
    steps: int = 25

    @property
    def call(self) -> dict[str, Any]:
        """Arguments of the pipeline call, as exports take them."""
        return {"batch_size": self.batch, "num_inference_steps": self.steps}


@dataclass(frozen=True)
class Row:
    """One plan somewhere.

    Attributes:
        plan: Its name; `float` for none.
        where: `PyTorch` for the quantized graph, or the runtime.
        sqnr_db: Mean over pictures of each one's SQNR against float PyTorch.
        accuracy: Share of digits whose three nearest real ones are of one class.
        same_class: Share of digits whose nearest real one has the class that float PyTorch's has.
    """

    plan: str
    where: str
    sqnr_db: Interval
    accuracy: Interval
    same_class: Interval


def calibrated(work: Path, plan: Path, settings: Settings) -> Path:
    """Ranges for every plan with the calibration of this one; kept if they are there."""
    file = work / "ranges.safetensors"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        qdx.calibrate(MODEL, plan=plan, output=file, call=settings.call)
    return file


def exported(work: Path, plan: Path, target: str, settings: Settings) -> Bundle:
    """The digits with a plan on a target."""
    folder = work / f"{plan.stem}-{target}"
    qdx.export(
        MODEL, target=target, plan=plan, output=folder, call=settings.call,
        ranges=calibrated(work, plan, settings), force=True,
    )  # fmt: skip
    return read_bundle(folder)


def in_torch(bundle: Bundle, plan: Path) -> DiffusionPipeline:
    """The bundle's pipeline with its quantized graph computed in PyTorch."""
    model = quantized_model(bundle, load_plan(plan), MODEL)
    skeleton = open_skeleton(bundle)
    methods = {
        where: as_method(method, model.quantized[where])
        for where, method in open_methods(bundle).items()
    }
    attach(skeleton, methods)
    return skeleton.pipeline


def pictures(pipeline: DiffusionPipeline, settings: Settings) -> Pictures:
    """Draws digits with the noise of consecutive seeds.

    Returns:
        float64 [pictures, 16, 16], 0 to 1.
    """
    pipeline.set_progress_bar_config(disable=True)
    drawn = [
        pipeline(
            **settings.call, generator=torch.Generator().manual_seed(seed), output_type="np"
        ).images[..., 0]
        for seed in range(FIRST_SEED, FIRST_SEED + settings.pictures // settings.batch)
    ]
    return np.concatenate(drawn).astype(np.float64)


def sqnr_db(reference: Pictures, drawn: Pictures) -> NDArray[np.float64]:
    """Each picture's signal to quantization noise ratio as a sample from -1 to 1, in decibels [pictures]."""
    signal = np.square(2 * reference - 1).sum((1, 2))
    noise = np.square(2 * (drawn - reference)).sum((1, 2))
    ratio: NDArray[np.float64] = 10 * np.log10(signal / np.maximum(noise, 1e-12))
    return ratio


def row(plan: str, where: str, reference: Pictures, drawn: Pictures) -> Row:
    """The figures of one set of pictures."""
    classes, known = nearest_classes(drawn), nearest_classes(reference)
    return Row(
        plan,
        where,
        bootstrap(sqnr_db(reference, drawn).tolist()),
        bootstrap(agreement(classes).tolist()),
        bootstrap((classes[:, 0] == known[:, 0]).astype(float).tolist()),
    )


def gain_db(reference: Pictures, static: Pictures, grouped: Pictures) -> Interval:
    """What groups of timesteps gain, picture by picture."""
    return bootstrap((sqnr_db(reference, grouped) - sqnr_db(reference, static)).tolist())


def main() -> int:
    """Measures the plans and prints a table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    settings = Settings(arguments.pictures, arguments.batch, arguments.steps)
    work: Path = arguments.work
    reference = pictures(load(MODEL), settings)
    rows = [row("float", "PyTorch", reference, reference)]
    gains: dict[str, Interval] = {}
    for bits in arguments.bits:
        drawn = {}
        for plan in PAIRS[bits]:
            bundle = exported(work, PLANS / f"{plan}.json", _QUANTIZED_IN, settings)
            drawn[plan] = pictures(in_torch(bundle, PLANS / f"{plan}.json"), settings)
            rows.append(row(plan, "PyTorch", reference, drawn[plan]))
            say(rows[-1])
        gains[f"{bits} bits, PyTorch"] = gain_db(reference, *drawn.values())
    for target in arguments.targets:
        drawn = {}
        for plan in PAIRS[arguments.bits[0]]:
            bundle = exported(work, PLANS / f"{plan}.json", target, settings)
            drawn[plan] = pictures(qdx.open(bundle.path, threads=arguments.threads), settings)
            rows.append(row(plan, target, reference, drawn[plan]))
            say(rows[-1])
        gains[f"{arguments.bits[0]} bits, {target}"] = gain_db(reference, *drawn.values())
    sys.stdout.write(f"float: {words(rows[0].accuracy, 100, '%')} of digits are read\n")
    for name, gain in gains.items():
        sys.stdout.write(f"{name}: groups gain {words(gain, 1, 'dB')}\n")
    result = {"rows": [asdict(each) for each in rows], "gains_db": {n: asdict(g) for n, g in gains.items()}}  # fmt: skip
    (work / "timestep_groups.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def say(found: Row) -> None:
    """Prints one row."""
    sys.stdout.write(
        f"{found.plan:18} {found.where:12} SQNR {words(found.sqnr_db, 1, 'dB')}, "
        f"read {words(found.accuracy, 100, '%')}, as float {words(found.same_class, 100, '%')}\n"
    )
    sys.stdout.flush()


def words(value: Interval, factor: float, unit: str) -> str:
    """Returns a figure with its interval."""
    mean, low, high = (factor * each for each in (value.mean, value.low, value.high))
    return f"{mean:.1f} {unit} ({low:.1f} .. {high:.1f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("build/timestep_groups"))
    parser.add_argument("--pictures", type=int, default=Settings.pictures)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--bits", type=int, nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument(
        "--targets", nargs="*", default=["openvino", "onnxruntime"],
        help="runtimes that draw with the first of the bits",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
