"""What an export costs: seconds, and peak anonymous memory of the whole process tree.

    python -m benchmarks.export_cost sd15 flux-1b flux-4b --work build/export-cost
    python -m benchmarks.export_cost flux-4b --plan float16 w8 w4 --work build/export-cost
    python -m benchmarks.export_cost sd15 --target coreml --plan palette6 --layout swift --halves --work build/export-cost

Anonymous memory is what an export really takes from the machine: pages of mapped or cached files are given back
when somebody needs them.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from benchmarks.process_tree import run_measured
from benchmarks.real_sizes import MODELS, make


@dataclass(frozen=True)
class Cost:
    """One export.

    Attributes:
        model: Which.
        parameters: Of its enlarged components.
        target: The target.
        plan: The plan.
        seconds: Wall time of the command, the start of Python included.
        peak_anonymous_bytes: Largest sum of `RssAnon` over the process tree.
        bundle_bytes: All files of the result.
    """

    model: str
    parameters: int
    target: str
    plan: str
    seconds: float
    peak_anonymous_bytes: int
    bundle_bytes: int


def main() -> None:
    """Measures the models named on the command line with each plan, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument(
        "--plan",
        nargs="+",
        default=[None],
        help="default: the dtype in which the weights are stored",
    )
    parser.add_argument("--layout", default=None, help="another layout of the target's bundles")
    parser.add_argument("--halves", action="store_true", help="large models as two packages")
    parser.add_argument(
        "--work", type=Path, default=None, help="a folder with room for model and bundle"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    costs = []
    for model, plan in product(arguments.models, arguments.plan):
        if arguments.work is not None:
            arguments.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            costs.append(_measure(model, arguments.target, plan, Path(work), _layout(arguments)))
        _print(costs[-1])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


def _layout(arguments: argparse.Namespace) -> list[str]:
    named = [] if arguments.layout is None else ["--layout", arguments.layout]
    return [*named, *(["--halves"] if arguments.halves else [])]


def _measure(model: str, target: str, plan: str | None, work: Path, layout: Sequence[str]) -> Cost:
    dtype = "float32" if model == "sd15" else "float16"
    parameters = make(model, work / "model", dtype=dtype)
    command = [sys.executable, "-m", "qdx", "export", str(work / "model"), "--target", target,
               "--plan", plan or dtype, "-o", str(work / "bundle"), *layout]  # fmt: skip
    if model.startswith("flux"):
        command += ["--components", "transformer", "--call", '{"height": 1024, "width": 1024}']
    taken = run_measured(command)
    if taken.status:
        raise SystemExit(f"{model}: qdx export exited with {taken.status}")
    size = sum(path.stat().st_size for path in (work / "bundle").rglob("*") if path.is_file())
    shutil.rmtree(work / "bundle")
    return Cost(
        model, parameters, target, plan or dtype, taken.seconds, taken.peak_anonymous_bytes, size
    )


def _print(cost: Cost) -> None:
    sys.stdout.write(
        f"{cost.model}: {cost.parameters / 1e9:.2f} billion parameters to {cost.target} as {cost.plan}: "
        f"{cost.seconds:.0f} s, {cost.peak_anonymous_bytes / 1e9:.2f} GB anonymous memory, "
        f"{cost.bundle_bytes / 1e9:.2f} GB written ({platform.machine()})\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
