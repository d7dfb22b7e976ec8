"""What a verification costs: seconds, processor time and peak anonymous memory, the first and with what PyTorch computed kept.

    python -m benchmarks.verify_cost unet80 --target openvino onnxruntime --work build/verify-cost
    python -m benchmarks.verify_cost sd15 --target openvino onnxruntime --plan w8a8 --work build/verify-cost
    python -m benchmarks.verify_cost samples/shapes --plan samples/plans/shapes-w8a8.json --work build/verify-cost

Each model is exported once for each target, with the plan's calibration cut to one sample and two groups of timesteps:
the ranges are poor and the gates may fail, which costs verification the same. The verifications come one after the other
with one cache that is empty at first, so that the first runs the reference and every other finds it; the first target is
verified twice. A line also says how many calls of each method were compared, how many of the quantized graphs' answers came
from the cache, and what share of the first verification's seconds it took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pipelines import make_pipeline
from benchmarks.process_tree import run_measured
from benchmarks.real_sizes import make

_FAILED_GATE = 1


@dataclass(frozen=True)
class Cost:
    """One verification.

    Attributes:
        model: Which.
        target: Of the bundle.
        from_cache: Number of runs of the reference that were found in the cache.
        answers_from_cache: Number of calls of quantized graphs in PyTorch that were found there.
        seconds: Wall time of the command, the start of Python included.
        cpu_seconds: Of all processors together.
        peak_anonymous_bytes: Largest sum of `RssAnon` over the process tree.
        calls: How many calls of each method were made and compared.
        passed: Whether every gate held.
    """

    model: str
    target: str
    from_cache: int
    answers_from_cache: int
    seconds: float
    cpu_seconds: float
    peak_anonymous_bytes: int
    calls: dict[str, dict[str, int]]
    passed: bool


def main() -> None:
    """Measures the models named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="unet80, sd15, or a pipeline folder")
    parser.add_argument("--target", nargs="+", default=["openvino"])
    parser.add_argument("--plan", default="w8a8", help="a preset's name or a JSON file")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--budget", default=None, help="as for `qdx verify`")
    parser.add_argument("--work", type=Path, required=True, help="takes models, bundles and cache")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    costs = [cost for model in arguments.models for cost in _measure(model, arguments)]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


def _measure(model: str, arguments: argparse.Namespace) -> list[Cost]:
    work = arguments.work / Path(model).name
    work.mkdir(exist_ok=True)
    folder = _model(model, work / "model")
    plan = _short_plan(arguments.plan, work / "plan.json")
    call = json.dumps(
        {"prompt": "a red circle", "guidance_scale": 4, "num_inference_steps": arguments.steps}
    )
    bundles = {}
    for target in arguments.target:
        bundles[target] = work / target
        if not bundles[target].exists():
            _run(["export", str(folder), "--target", target, "--plan", str(plan), "--call", call,
                  "-o", str(bundles[target])])  # fmt: skip
    cache = work / "cache"
    _run(["cache", "clear"], cache=cache)
    costs = []
    for target in (arguments.target[0], *arguments.target):
        cost = _verify(model, folder, bundles[target], target, arguments.budget, cache)
        costs.append(cost)
        _print(cost, cost.seconds / costs[0].seconds)
    return costs


def _model(model: str, folder: Path) -> Path:
    if Path(model, "model_index.json").exists():
        return Path(model)
    if model == "unet80":
        return make_pipeline(folder)
    if not (folder / "model_index.json").exists():
        make(model, folder, dtype="float32")
    return folder


def _short_plan(plan: str, path: Path) -> Path:
    """The plan with as little calibration as it allows."""
    from qdx.exporter.files import dump_json
    from qdx.exporter.plan import load_plan

    value = load_plan(plan).model_dump(mode="json", by_alias=True, exclude_unset=True)
    value["calibration"] = {**value.get("calibration", {}), "samples": 1, "timestep_groups": 2}
    value["name"] = f"{value.get('name', 'unnamed')}-short"
    path.write_bytes(dump_json(value))
    return path


def _verify(
    model: str, folder: Path, bundle: Path, target: str, budget: str | None, cache: Path
) -> Cost:
    report = bundle.with_name(f"{target}-report")
    within = [] if budget is None else ["--budget", budget]
    command = ["verify", str(bundle), "--model", str(folder), "--report", str(report), *within]
    taken = _run(command, cache=cache, accepted=(0, _FAILED_GATE))
    found: dict[str, Any] = json.loads((report / "report.json").read_text())  # written a moment ago
    calls = {
        f"{component}.{method}": result["calls"]
        for component, one in found["components"].items()
        for method, result in one["methods"].items()
    }
    quantized = found["reference"]["quantized"] or {"cached": 0}
    return Cost(model, target, found["reference"]["cached"], quantized["cached"], taken.seconds,
                taken.cpu_seconds, taken.peak_anonymous_bytes, calls, found["ok"])  # fmt: skip


def _run(
    command: Sequence[str], *, cache: Path | None = None, accepted: Sequence[int] = (0,)
) -> Any:
    environment = dict(os.environ) if cache is None else {**os.environ, "QDX_CACHE": str(cache)}
    taken = run_measured([sys.executable, "-m", "qdx", *command], env=environment)
    if taken.status not in accepted:
        raise SystemExit(f"qdx {command[0]} exited with {taken.status}")
    return taken


def _print(cost: Cost, of_first: float) -> None:
    compared = ", ".join(
        f"{where} {count['measured']} of {count['made']}" for where, count in cost.calls.items()
    )
    source = "from the cache the reference" if cost.from_cache else "from the cache no reference"
    sys.stdout.write(
        f"{cost.model} on {cost.target}, {source} and {cost.answers_from_cache} answers of quantized graphs: "
        f"{cost.seconds:.0f} s ({of_first:.0%} of the first), {cost.cpu_seconds:.0f} CPU-s, "
        f"{cost.peak_anonymous_bytes / 1e9:.2f} GB anonymous memory; calls compared: {compared}; "
        f"{'passed' if cost.passed else 'a gate failed'} ({platform.machine()})\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
