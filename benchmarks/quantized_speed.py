"""W8A8 speed and accuracy: one UNet quantized by qdx and by the runtime's own tool, against float32, in turns.

    python -m benchmarks.quantized_speed --runtime both --work build/quantized_speed

The pipeline is made on the spot: Stable Diffusion's topology with about 80 million random weights. qdx exports it as
float32 and with the plan; the runtime's own quantizer gets that float32 artifact and the same calibration calls.
Each of the three runs in a process of its own, one call of each in every round. The noise is measured on calls of
another prompt and seed, against float32 PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import qdx
from benchmarks.pipelines import HEADS, make_pipeline
from benchmarks.quantized_peers import PEERS, arrays
from qdx.backends.registry import get_backend
from qdx.bench.bench import bench
from qdx.bench.calls import MethodCalls, reference_calls
from qdx.bench.ratios import Ratio, ratio_of
from qdx.bench.report import BenchReport
from qdx.bundle.reader import read_bundle
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.schema.load import preset_text
from qdx.targets.profile import load_target

WHERE = "unet.forward"
CALL = {"prompt": "a red circle left of a blue square"}
HELD_OUT_CALL = {"prompt": "a green triangle above a yellow star"}
HELD_OUT_SEED = 1000
HELD_OUT_STEPS = 6
SAMPLES, STEPS = 2, 10  # of calibration


@dataclass(frozen=True)
class Row:
    """One artifact.

    Attributes:
        runtime: What ran it.
        artifact: Who made it.
        median_ms: Of a call.
        ratio: To qdx's float32 on the same runtime, round by round.
        cpu_ratio: The same of processor time.
        to_peer: To the runtime's own quantizer, likewise.
        cpu_to_peer: The same of processor time.
        sqnr_db: Median over the held-out calls, against float32 PyTorch.
        worst_sqnr_db: The least.
        artifact_bytes: Its files.
        memory_bytes: What opening and running added to its process.
    """

    runtime: str
    artifact: str
    median_ms: float
    ratio: Ratio
    cpu_ratio: Ratio
    to_peer: Ratio
    cpu_to_peer: Ratio
    sqnr_db: float
    worst_sqnr_db: float
    artifact_bytes: int
    memory_bytes: int | None


def main() -> int:
    """Exports what is not there yet, measures, prints a table and writes the figures."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work / arguments.heads
    source = make_pipeline(work / "pipeline", arguments.heads)
    runtimes = list(PEERS) if arguments.runtime == "both" else [arguments.runtime]
    rows: list[Row] = []
    reports = {}
    for runtime in runtimes:
        folders = artifacts(source, runtime, work, arguments.plan)
        held_out = _calls(
            source, folders["qdx float32"], HELD_OUT_CALL, HELD_OUT_STEPS, HELD_OUT_SEED
        )
        noise = {name: _noise(runtime, path, held_out) for name, path in folders.items()}
        report = bench(
            [f"{name}={path}:{runtime}" for name, path in folders.items()],
            calls={WHERE: held_out},
            rounds=arguments.rounds,
            threads=arguments.threads,
        )
        reports[runtime] = report.to_json()
        rows += summarize(report, noise)
        sys.stdout.write(table(rows))
        sys.stdout.flush()
    result = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "calibration": {"samples": SAMPLES, "steps": STEPS},
        "rows": [asdict(row) for row in rows],
        "reports": reports,
    }
    (work / "quantized_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def artifacts(source: Path, runtime: str, work: Path, plan: Path | None) -> dict[str, Path]:
    """The three folders, made where they are missing; float32 first, the peer last."""
    peer, make = PEERS[runtime]
    folders = {
        name: work / f"{runtime}-{name.replace(' ', '-')}"
        for name in ("qdx float32", "qdx w8a8", peer)
    }
    for name, chosen in (("qdx float32", "float32"), ("qdx w8a8", _plan(work, plan))):
        if not folders[name].exists():
            qdx.export(
                source, target=runtime, plan=chosen, output=folders[name], call=CALL, components=["unet"]
            )  # fmt: skip
    if not folders[peer].exists():
        float32 = folders["qdx float32"] / "unet"
        specs = _open(runtime, float32).inputs
        calls = [
            arrays(specs, inputs)
            for seed in range(SAMPLES)
            for inputs in _calls(source, folders["qdx float32"], CALL, STEPS, seed).inputs
        ]
        make(float32, folders[peer], calls)
    return folders


def _plan(work: Path, plan: Path | None) -> Path:
    """The preset, or the plan that was given, with less calibration."""
    data = json.loads(preset_text("w8a8") if plan is None else plan.read_text())
    own = {"samples": SAMPLES, "steps": STEPS, "observed": 1.0, "seed": 0}
    data["calibration"] = {**data.get("calibration", {}), **own}
    path = work / "plan.json"
    path.write_text(json.dumps(data, indent=2) + "\n")
    return path


def _calls(source: Path, bundle: Path, call: dict[str, Any], steps: int, seed: int) -> MethodCalls:
    """Every call of the UNet in one run of the pipeline in PyTorch."""
    manifest = read_bundle(bundle).manifest
    return reference_calls(manifest, source, steps=steps, call=call, seed=seed, keep=1000)[WHERE]


def _open(runtime: str, folder: Path) -> Any:
    return get_backend(runtime).open(folder, load_target(runtime).options, threads=2)


def _noise(runtime: str, folder: Path, calls: MethodCalls) -> list[float]:
    """Decibels of an artifact against PyTorch, one for each call."""
    inner = folder / "unet"
    runner = _open(runtime, inner if inner.exists() else folder)
    output = runner.outputs[0].name
    found = []
    for inputs, outputs in zip(calls.inputs, calls.outputs, strict=True):
        result = torch.from_numpy(runner(arrays(runner.inputs, inputs))[output])
        found.append(sqnr_db(next(iter(outputs.values())), result))
    return found


def summarize(report: BenchReport, noise: dict[str, list[float]]) -> list[Row]:
    """A row for each artifact; the last contender is the peer."""
    timings = [timing for timing in report.timings if timing.where == WHERE]
    peer = timings[-1]
    rows = []
    for timing, one in zip(timings, report.contenders, strict=True):
        rows.append(
            Row(
                runtime=one.runtime,
                artifact=one.name,
                median_ms=timing.median_ms,
                ratio=timing.ratio,
                cpu_ratio=timing.cpu_ratio,
                to_peer=ratio_of(timing.times_ms, peer.times_ms, report.openings),
                cpu_to_peer=ratio_of(timing.cpu_times_ms, peer.cpu_times_ms, report.openings),
                sqnr_db=statistics.median(noise[one.name]),
                worst_sqnr_db=min(noise[one.name]),
                artifact_bytes=one.artifact_bytes,
                memory_bytes=one.memory_bytes,
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The figures as text."""
    head = (
        "runtime",
        "artifact",
        "median ms",
        "times float32 speed",
        "ratio to peer",
        "SQNR dB",
        "worst",
    )
    lines = [
        "{:12} {:16} {:>9} {:>22} {:>22} {:>8} {:>6} {:>6} {:>9}".format(*head, "MB", "memory MB")
    ]
    for row in rows:
        speed = f"{1 / row.ratio.median:.2f} ({1 / row.ratio.high:.2f} .. {1 / row.ratio.low:.2f})"
        peer = row.to_peer
        to_peer = f"{peer.median:.3f} ({peer.low:.3f} .. {peer.high:.3f})"
        memory = "" if row.memory_bytes is None else f"{row.memory_bytes / 1e6:.0f}"
        lines.append(
            f"{row.runtime:12} {row.artifact:16} {row.median_ms:9.1f} {speed:>22} {to_peer:>22}"
            f" {row.sqnr_db:8.1f} {row.worst_sqnr_db:6.1f} {row.artifact_bytes / 1e6:6.1f} {memory:>9}"
        )
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--work", type=Path, default=Path("build/quantized_speed"), help="where artifacts are kept"
    )
    parser.add_argument("--heads", choices=HEADS, default="8-heads", help="of the UNet's attention")
    parser.add_argument("--runtime", choices=[*PEERS, "both"], default="both")
    parser.add_argument("--plan", type=Path, help="instead of the preset w8a8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
