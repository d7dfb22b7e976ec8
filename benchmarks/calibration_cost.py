"""What calibration costs: seconds beside the same pipeline calls in plain PyTorch, and peak anonymous memory.

    python -m benchmarks.calibration_cost unet-80m --samples 4 --steps 10 --work build/calibration-cost
    python -m benchmarks.calibration_cost sd15 flux-1b --samples 2 --steps 4 --work build/calibration-cost

Random weights. Plain PyTorch runs the diffusers pipeline with as many threads as there are processors, up to the
latents, so that leaving out the autoencoder is no part of the gain. `qdx calibrate` records all that the plan needs,
with each number of workers; its seconds are those of the whole command, the start of Python and tracing included. All
take turns in processes of their own, in every round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.export_cost import _tree_anonymous_bytes
from benchmarks.pipelines import make_pipeline
from benchmarks.real_sizes import MODELS, make
from qdx.exporter.plan.load import preset_text

_POLL_S = 0.05
_UNET_80M = "unet-80m"
_CALLS: dict[str, dict[str, Any]] = {
    _UNET_80M: {},
    "sd15": {"height": 512, "width": 512, "guidance_scale": 7.5},
}
_LARGE: dict[str, Any] = {"height": 1024, "width": 1024}
_PLAIN = """
import json, sys, time
import torch
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
folder, samples, call = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
pipeline = load_pipeline(read_pipeline_folder(folder)).pipeline
pipeline.set_progress_bar_config(disable=True)
start = time.monotonic()
for seed in range(samples):
    with torch.no_grad():
        pipeline(**call, output_type="latent", generator=torch.Generator().manual_seed(seed))
print(time.monotonic() - start)
"""


@dataclass(frozen=True)
class Cost:
    """One way to run the calls of a calibration.

    Attributes:
        model: Which.
        name: `plain PyTorch`, or `qdx` with its number of workers.
        seconds: Of each round: of the calls alone in plain PyTorch, of the whole command of qdx.
        peak_anonymous_bytes: Largest sum of `RssAnon` over the process tree, over all rounds.
    """

    model: str
    name: str
    seconds: tuple[float, ...]
    peak_anonymous_bytes: int


def main() -> None:
    """Measures the models named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=(_UNET_80M, *MODELS))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--observed", type=float, default=None, help="default: the plan's")
    parser.add_argument("--plan", type=Path, default=None, help="default: the preset w8a8")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder with room for the models"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    costs: list[Cost] = []
    for model in arguments.models:
        folder = _model(model, arguments.work)
        costs += _measure(model, folder, arguments)
        sys.stdout.write(_table(costs, arguments))
        sys.stdout.flush()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


def _model(model: str, work: Path) -> Path:
    """The pipeline; kept if it is there."""
    folder = work / model
    if model == _UNET_80M:
        return make_pipeline(folder)
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        make(model, folder, dtype="float32")
    return folder


def _measure(model: str, folder: Path, arguments: argparse.Namespace) -> list[Cost]:
    plan = json.loads(arguments.plan.read_text() if arguments.plan else preset_text("w8a8"))
    calibration = {"samples": arguments.samples, "steps": arguments.steps, "seed": 0}
    calibration["timestep_groups"] = min(10, arguments.steps)
    if arguments.observed is not None:
        calibration["observed"] = arguments.observed
    plan["calibration"] = calibration
    plan_file = arguments.work / "plan.json"
    plan_file.write_text(json.dumps(plan))
    call = {"prompt": "a photograph", **_CALLS.get(model, _LARGE)}
    plain = [sys.executable, "-c", _PLAIN, str(folder), str(arguments.samples),
             json.dumps({**call, "num_inference_steps": arguments.steps})]  # fmt: skip
    found: dict[str, list[tuple[float, int]]] = {}
    for _ in range(arguments.rounds):
        found.setdefault("plain PyTorch", []).append(_timed(plain, told=True))
        for workers in arguments.workers:
            ranges = arguments.work / "ranges.qdx"
            command = [sys.executable, "-m", "qdx", "calibrate", str(folder), "--plan", str(plan_file),
                       "--call", json.dumps(call), "-o", str(ranges), "--force", "--no-cache",
                       "--workers", str(workers), "--quiet"]  # fmt: skip
            found.setdefault(f"qdx, {workers} workers", []).append(_timed(command))
            ranges.unlink()
    return [
        Cost(model, name, tuple(s for s, _ in rounds), max(peak for _, peak in rounds))
        for name, rounds in found.items()
    ]


def _timed(command: Sequence[str], *, told: bool = False) -> tuple[float, int]:
    """Seconds and peak memory of a command; the seconds that it prints itself where it does."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_anonymous_bytes(process.pid))
        time.sleep(_POLL_S)
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"{command[:6]} exited with {process.returncode}")
    assert process.stdout is not None
    printed = process.stdout.read()
    return (float(printed) if told else seconds), peak


def _table(costs: Sequence[Cost], arguments: argparse.Namespace) -> str:
    """One row for each way, with the ratio to plain PyTorch, round by round."""
    rows = [
        f"{arguments.samples} samples of {arguments.steps} steps ({platform.machine()}, "
        f"{os.cpu_count()} processors)\n\n| model | run | seconds | of plain | anonymous GB |\n|---|---|---|---|---|\n"
    ]
    plain: Cost | None = None
    for cost in costs:
        plain = cost if cost.name == "plain PyTorch" else plain
        assert plain is not None
        ratio = statistics.median(
            own / other for own, other in zip(cost.seconds, plain.seconds, strict=True)
        )
        seconds = ", ".join(f"{value:.0f}" for value in cost.seconds)
        rows.append(
            f"| {cost.model} | {cost.name} | {seconds} | {ratio:.2f} | {cost.peak_anonymous_bytes / 1e9:.2f} |\n"
        )
    return "".join(rows)


if __name__ == "__main__":
    main()
