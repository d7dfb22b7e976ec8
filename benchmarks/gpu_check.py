"""What a person with a GPU runs: calibrate, export and verify on it, beside the same on the processor.

    python -m benchmarks.gpu_check --work build/gpu-check
    python -m benchmarks.gpu_check shapes sd15 sdxl --steps 4 --work build/gpu-check

Each command runs once on either device, in a process of its own. The table tells seconds, the anonymous memory of the
processes and the most memory of the GPU that was in use; then how far the ranges of both devices are apart, and both
verdicts. Exit status 1 where a command fails on one device alone, verdicts differ, or ranges are further apart than
float32 explains; 4 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.process_tree import run_measured
from benchmarks.real_sizes import make
from qdx.exporter.calibrate.ranges_file import load_ranges
from qdx.exporter.devices import choose_device, describe_device
from qdx.exporter.errors import RuntimeMissing
from qdx.exporter.plan.schema.load import preset_text

_SHAPES: Final = "shapes"
_SIZES: Final[dict[str, dict[str, Any]]] = {
    _SHAPES: {"prompt": "a red circle left of a blue square"},
    "sd15": {"prompt": "a", "height": 512, "width": 512},
    "sdxl": {"prompt": "a", "height": 1024, "width": 1024},
}
# Two devices add up in another order: float32 keeps 24 bits, and a network of some hundred layers loses some.
_APART: Final = 1e-2
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Run:
    """One command on one device.

    Attributes:
        model: Which.
        command: `calibrate`, `export` or `verify`.
        device: `cpu` or the GPU.
        seconds: Wall time, the start of Python included.
        anonymous_bytes: Largest sum of `RssAnon` over the processes.
        gpu_bytes: Most memory of the GPU in use, that of others included.
        status: Its exit status.
    """

    model: str
    command: str
    device: str
    seconds: float
    anonymous_bytes: int
    gpu_bytes: int
    status: int


def main() -> int:
    """Checks the models named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[_SHAPES, "sd15"], help=", ".join(_SIZES))
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, required=True, help="a folder for models and bundles")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    unknown = [model for model in arguments.models if model not in _SIZES]
    if unknown:
        parser.error(f"no model {unknown[0]!r}, expected some of {', '.join(_SIZES)}")
    try:
        gpu = choose_device(arguments.device, _say)
        if gpu.type == "cpu":
            raise RuntimeMissing("the processor alone was chosen")
    except RuntimeMissing as missing:
        _say(f"this check needs an NVIDIA GPU and a PyTorch built with CUDA: {missing.message}")
        return RuntimeMissing.exit_code
    _say(f"{describe_device(gpu)}, PyTorch {torch.__version__}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    figures: dict[str, Any] = {"gpu": describe_device(gpu), "models": {}}
    for model in dict.fromkeys(arguments.models):
        found = _check(model, arguments, gpu)
        figures["models"][model] = found
        faults += [f"{model}: {fault}" for fault in found["faults"]]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    for fault in faults:
        _say(f"FAULT {fault}")
    return 1 if faults else 0


def _check(model: str, arguments: argparse.Namespace, gpu: torch.device) -> dict[str, Any]:
    """All commands on both devices."""
    folder = _folder(model, arguments.work)
    plan = _plan(arguments)
    call = json.dumps({**_SIZES[model], "num_inference_steps": arguments.steps})
    runs: list[Run] = []
    ranges: dict[str, Path] = {}
    verdicts: dict[str, Any] = {}
    for device in ("cpu", str(gpu)):
        work = arguments.work / f"{model}-{device.replace(':', '')}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        ranges[device] = work / "ranges.qdx"
        bundle, report = work / "bundle", work / "report"
        common = ["--device", device, "--no-cache"]
        commands = {
            "calibrate": [str(folder), "--plan", str(plan), "--call", call, "-o", str(ranges[device]), *common],
            "export": [str(folder), "--target", arguments.target, "--plan", str(plan), "--call", call,
                       "-o", str(bundle), *common],
            "verify": [str(bundle), "--model", str(folder), "--steps", str(arguments.steps),
                       "--report", str(report), *common],
        }  # fmt: skip
        for command, given in commands.items():
            run = _measured(model, command, device, given, gpu)
            runs.append(run)
            _say(
                f"| {model} | {command} | {device} | {run.seconds:.1f} s "
                f"| {run.anonymous_bytes / 1e9:.2f} GB | GPU {run.gpu_bytes / 1e9:.2f} GB | {run.status} |"
            )
        if (report / "report.json").exists():
            verdicts[device] = _verdict(json.loads((report / "report.json").read_text()))
    apart = _apart(*ranges.values()) if all(map(Path.exists, ranges.values())) else None
    _say(f"{model}: ranges are apart by {apart} of their width at most; verdicts {verdicts}")
    return {
        "runs": [vars(run) for run in runs],
        "ranges_apart": apart,
        "verdicts": verdicts,
        "faults": _faults(runs, apart, verdicts),
    }


def _measured(
    model: str, command: str, device: str, given: Sequence[str], gpu: torch.device
) -> Run:
    with _watched(gpu) as most:
        taken = run_measured(
            [sys.executable, "-m", "qdx", command, *given, "--json"], env=dict(os.environ)
        )
    return Run(
        model, command, device, taken.seconds, taken.peak_anonymous_bytes, most[0], taken.status
    )  # fmt: skip


@contextmanager
def _watched(gpu: torch.device) -> Iterator[list[int]]:
    """The most memory of a GPU in use, as its driver tells, in the one element of a list."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            free, total = torch.cuda.mem_get_info(gpu)
            most[0] = max(most[0], total - free)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def _folder(model: str, work: Path) -> Path:
    """The pipeline; kept if it is there."""
    if model == _SHAPES:
        return Path(__file__).parent.parent / "samples" / "shapes"
    folder = work / model
    if not folder.exists():
        make(model, folder, dtype="float16")
    return folder


def _plan(arguments: argparse.Namespace) -> Path:
    plan = json.loads(preset_text("w8a8"))
    plan["calibration"] = {"samples": arguments.samples, "steps": arguments.steps, "seed": 0}
    path: Path = arguments.work / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def _apart(one: Path, other: Path) -> float:
    """The greatest difference of an end of a range, as a share of the range on the processor."""
    left, right = load_ranges(one), load_ranges(other)
    worst = 0.0
    for where, graph in left.graphs.items():
        for mine, theirs in zip(graph.tensors, right.graphs[where].tensors, strict=True):
            low, high = mine.range("minmax")
            ends = zip((low, high), theirs.range("minmax"), strict=True)
            width = max(high - low, abs(low), abs(high))
            if width > 0:
                worst = max(worst, max(abs(a - b) for a, b in ends) / width)
    return worst


def _verdict(report: dict[str, Any]) -> dict[str, Any]:
    """Whether all gates hold, and the gates that do not."""
    gates = report["gates"]
    return {
        "ok": report["ok"],
        "failed": sorted(gate["name"] for gate in gates if not gate["ok"]),
    }


def _faults(runs: Sequence[Run], apart: float | None, verdicts: dict[str, Any]) -> list[str]:
    found = []
    for command in dict.fromkeys(run.command for run in runs):
        statuses = {run.device: run.status for run in runs if run.command == command}
        if len(set(statuses.values())) > 1 or (command != "verify" and any(statuses.values())):
            found.append(f"{command} ended with {statuses}")
    if apart is None or not apart <= _APART:
        found.append(f"ranges are apart by {apart}, expected at most {_APART}")
    if len({json.dumps(verdict, sort_keys=True) for verdict in verdicts.values()}) > 1:
        found.append(f"verdicts differ: {verdicts}")
    return found


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
