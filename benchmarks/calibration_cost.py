"""What calibration costs: seconds beside the same pipeline calls in plain PyTorch, and peak anonymous memory.

    python -m benchmarks.calibration_cost unet80 --samples 4 --steps 10 --nncf --work build/calibration-cost
    python -m benchmarks.calibration_cost sd15 flux-1b --samples 2 --steps 4 --work build/calibration-cost

Random weights. Plain PyTorch runs the diffusers pipeline with as many threads as there are processors, up to the
latents, so that leaving out the autoencoder is no part of the gain; its calls are told alone, and with the start of
Python and reading the model as a command. `qdx calibrate` records all that the plan needs, with each number of workers;
its seconds are those of the whole command, the start of Python and tracing included. All take turns in processes of
their own, in every round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pipelines import make_pipeline
from benchmarks.process_tree import Taken, run_measured
from benchmarks.real_sizes import MODELS, make
from qdx.exporter.plan.schema.load import preset_text

_UNET80 = "unet80"
_CALLS: dict[str, dict[str, Any]] = {
    _UNET80: {},
    "sd15": {"height": 512, "width": 512, "guidance_scale": 7.5},
}
_LARGE: dict[str, Any] = {"height": 1024, "width": 1024}
_PLAIN = "plain PyTorch, its calls"
_PLAIN_COMMAND = "plain PyTorch, the command"


@dataclass(frozen=True)
class Cost:
    """One way to run the calls of a calibration.

    Attributes:
        model: Which.
        name: Plain PyTorch, qdx with its number of workers, or another tool.
        seconds: Of each round: of the calls alone or of the command in plain PyTorch, of the whole command of qdx, of
            the tool's call.
        peak_anonymous_bytes: Largest sum of `RssAnon` over the process tree, over all rounds; None where not measured.
    """

    model: str
    name: str
    seconds: tuple[float, ...]
    peak_anonymous_bytes: int | None


def main() -> None:
    """Measures the models named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=(_UNET80, *MODELS))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--observed", type=float, default=None, help="default: the plan's")
    parser.add_argument("--plan", type=Path, default=None, help="default: the preset w8a8")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--nncf", action="store_true", help="also nncf.quantize, with as many calls"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder with room for the models"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    costs: list[Cost] = []
    for model in arguments.models:
        costs += _measure(model, arguments)
        sys.stdout.write(_table(costs, arguments))
        sys.stdout.flush()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


def _measure(model: str, arguments: argparse.Namespace) -> list[Cost]:
    """All ways, in turns."""
    folder = _model(model, arguments.work)
    plan = _plan(arguments)
    call = {"prompt": "a photograph", **_CALLS.get(model, _LARGE)}
    found: dict[str, list[tuple[float, int | None]]] = {}
    for _ in range(arguments.rounds):
        calls_seconds, plain = _plain(folder, call, arguments)
        found.setdefault(_PLAIN, []).append((calls_seconds, plain.peak_anonymous_bytes))
        found.setdefault(_PLAIN_COMMAND, []).append((plain.seconds, plain.peak_anonymous_bytes))
        for workers in arguments.workers:
            name = f"qdx, {workers} at a time"
            found.setdefault(name, []).append(_qdx(folder, call, plan, workers, arguments.work))
        if arguments.nncf:
            seconds = _nncf(folder, call, arguments)
            found.setdefault("nncf.quantize, calls and all else", []).append((seconds, None))
    return [
        Cost(
            model,
            name,
            tuple(seconds for seconds, _ in rounds),
            max((peak for _, peak in rounds if peak is not None), default=None),
        )
        for name, rounds in found.items()
    ]


def _model(model: str, work: Path) -> Path:
    """The pipeline; kept if it is there."""
    folder = work / model
    if model == _UNET80:
        return make_pipeline(folder)
    if not folder.exists():
        make(model, folder, dtype="float32")
    return folder


def _plan(arguments: argparse.Namespace) -> Path:
    """The plan with as much calibration as is measured."""
    plan = json.loads(arguments.plan.read_text() if arguments.plan else preset_text("w8a8"))
    plan["calibration"] = {
        "samples": arguments.samples,
        "steps": arguments.steps,
        "timestep_groups": min(10, arguments.steps),
        **({} if arguments.observed is None else {"observed": arguments.observed}),
    }
    path: Path = arguments.work / "plan.json"
    path.write_text(json.dumps(plan, indent=2) + "\n")
    return path


def _plain(
    folder: Path, call: dict[str, Any], arguments: argparse.Namespace
) -> tuple[float, Taken]:
    """Seconds of the calls alone, and what the command took."""
    told: Path = arguments.work / "seconds"
    whole = {**call, "num_inference_steps": arguments.steps}
    taken = run_measured([
        sys.executable, "-m", "benchmarks.plain_calls", str(folder), "--samples", str(arguments.samples),
        "--call", json.dumps(whole), "-o", str(told),
    ])  # fmt: skip
    if taken.status:
        raise SystemExit(f"plain PyTorch exited with {taken.status}")
    return float(told.read_text()), taken


def _qdx(
    folder: Path, call: dict[str, Any], plan: Path, workers: int, work: Path
) -> tuple[float, int | None]:
    """Seconds of the whole command, and peak memory."""
    ranges = work / "ranges.qdx"
    taken = run_measured([
        sys.executable, "-m", "qdx", "calibrate", str(folder), "--plan", str(plan), "--call", json.dumps(call),
        "-o", str(ranges), "--force", "--no-cache", "--workers", str(workers),
    ])  # fmt: skip
    if taken.status:
        raise SystemExit(f"qdx calibrate exited with {taken.status}")
    return taken.seconds, taken.peak_anonymous_bytes


def _nncf(folder: Path, call: dict[str, Any], arguments: argparse.Namespace) -> float:
    """Seconds of `nncf.quantize` on the float artifact for OpenVINO, with inputs of the same calls recorded before."""
    import qdx
    from benchmarks.quantized_peers import arrays, nncf_quantize
    from qdx.backends.registry import get_backend
    from qdx.bench.calls import reference_calls
    from qdx.bundle.reader import read_bundle
    from qdx.targets.profile import load_target

    bundle = arguments.work / f"{folder.name}-float32"
    if not bundle.exists():
        qdx.export(folder, target="openvino", plan="float32", output=bundle, call=call, components=["unet"])  # fmt: skip
    opened = get_backend("openvino").open(bundle / "unet", load_target("openvino").options)
    manifest = read_bundle(bundle).manifest
    calls = [
        arrays(opened.inputs, inputs)
        for seed in range(arguments.samples)
        for inputs in reference_calls(
            manifest, folder, steps=arguments.steps, call=call, seed=seed, keep=1000
        )["unet.forward"].inputs
    ]
    target = arguments.work / f"nncf-{time.time_ns()}"
    start = time.monotonic()
    nncf_quantize(bundle / "unet", target, calls)
    return time.monotonic() - start


def _table(costs: Sequence[Cost], arguments: argparse.Namespace) -> str:
    """One row for each way, with the ratio to plain PyTorch, round by round."""
    title = f"{arguments.samples} samples of {arguments.steps} steps ({platform.machine()}, {os.cpu_count()} processors)"
    rows = [
        f"{title}\n\n| model | run | seconds | of plain | anonymous GB |\n|---|---|---|---|---|\n"
    ]
    plain: Cost | None = None
    for cost in costs:
        plain = cost if cost.name == _PLAIN else plain
        assert plain is not None
        ratio = statistics.median(
            own / other for own, other in zip(cost.seconds, plain.seconds, strict=True)
        )
        seconds = ", ".join(f"{value:.0f}" for value in cost.seconds)
        peak = "" if cost.peak_anonymous_bytes is None else f"{cost.peak_anonymous_bytes / 1e9:.2f}"
        rows.append(f"| {cost.model} | {cost.name} | {seconds} | {ratio:.2f} | {peak} |\n")
    return "".join(rows)


if __name__ == "__main__":
    main()
