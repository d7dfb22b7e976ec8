"""What building engines for TensorRT-RTX costs at real size: seconds, peak anonymous memory, and bytes beside the weights'.

    python -m benchmarks.rtx_engines sd15 --target rtx-ada --plan float16 w8a8 --work build/rtx-engines
    python -m benchmarks.rtx_engines 80m --target rtx-turing rtx-ada rtx-blackwell --work build/rtx-engines

The pipeline has random weights: Stable Diffusion 1.5's own sizes, or its topology with about 80 million parameters. qdx
exports the UNet without its engine, calibrated on one step of a small picture where the plan wants it, and `qdx build --force`
then builds it in a process tree whose memory is sampled. Bundles that lie in the folder are used again. The weights' bytes are those of the
file that the engine is built from.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

import qdx
from benchmarks.pipelines import make_pipeline
from benchmarks.process_tree import run_measured
from benchmarks.real_sizes import make
from qdx.exporter.plan.schema.load import preset_text

_MODELS: Final = ("sd15", "80m")
_SMALL: Final = 128
"""Pixels of the pictures that ranges are recorded with: an engine's size and build do not depend on its scales."""
_HEAD: Final = (
    "| model | target | plan | seconds | processor seconds | peak anonymous memory | weights | engine | more |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Builds each of the engines asked for and prints a row for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=_MODELS)
    parser.add_argument("--target", nargs="+", default=["rtx-ada"])
    parser.add_argument("--plan", nargs="+", default=["float16", "w8a8"])
    parser.add_argument("--work", type=Path, required=True, help="a folder with room for all of it")
    arguments = parser.parse_args(argv)
    sys.stdout.write(_HEAD)
    for model, target, plan in product(arguments.models, arguments.target, arguments.plan):
        bundle = _exported(arguments.work, model, target, plan)
        sys.stdout.write(f"| {model} | {target} | {plan} | {_built(bundle)} |\n")
        sys.stdout.flush()


def _exported(work: Path, model: str, target: str, plan: str) -> Path:
    """A bundle with the UNet alone and no engine."""
    bundle = work / f"{model}-{target}-{plan}"
    if bundle.exists():
        return bundle
    source = _pipeline(work / model, model)
    short = json.loads(preset_text(plan))
    quantizes = any("inputs" in rule for rule in short["rules"])
    if quantizes:
        short["calibration"] = {"samples": 1, "steps": 2}
        for rule in short["rules"]:
            rule.get("inputs", {}).pop(
                "observer", None
            )  # the least and greatest value, which cost nothing to record
    path = work / f"{plan}.plan.json"
    path.write_text(json.dumps(short, indent=2) + "\n")
    call, ranges = {"prompt": "a red circle"}, None
    if quantizes:
        ranges = work / f"{model}-{plan}.ranges"
        small = {**call, "height": _SMALL, "width": _SMALL}
        qdx.calibrate(source, plan=path, output=ranges, call=small, workers=1, force=True)
    qdx.export(
        source, target=target, plan=path, output=bundle, call=call, components=["unet"], ranges=ranges, build=False,
    )  # fmt: skip
    return bundle


def _pipeline(folder: Path, model: str) -> Path:
    if model == "80m":
        return make_pipeline(folder)
    if not (folder / "model_index.json").exists():
        make(model, folder, dtype="float32")
    return folder


def _built(bundle: Path) -> str:
    """The cells of a row, behind its names."""
    taken = run_measured([sys.executable, "-m", "qdx", "build", str(bundle), "--force", "--quiet"])
    if taken.status:
        raise SystemExit(f"{bundle.name}: `qdx build` left with {taken.status}")
    weights = (bundle / "unet" / "model.onnx_data").stat().st_size
    engine = (bundle / "unet" / "model.engine").stat().st_size
    cells = (
        f"{taken.seconds:.0f}",
        f"{taken.cpu_seconds:.0f}",
        f"{taken.peak_anonymous_bytes / 1e9:.2f} GB",
        f"{weights / 1e6:.0f} MB",
        f"{engine / 1e6:.0f} MB",
        f"{(engine - weights) / 1e6:.0f} MB",
    )
    return " | ".join(cells)


if __name__ == "__main__":
    main()
