"""Float speed: one UNet exported by qdx, optimum-onnx and optimum-intel, run interleaved in one process.

    python -m benchmarks.float_speed --peers build/venv-peers/bin/python --work build/float_speed

The pipeline is made on the spot: Stable Diffusion's topology with about 80 million random weights. The peers
export it in their own environment; all artifacts run with the runtimes of this environment, the same
options and the same number of threads, in turns, so that a change of the machine's load meets all alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipelines import SHAPES, make_pipeline, unet_graph

PEER_EXPORT = """
import sys
kind, source, target = sys.argv[1:]
if kind == "onnx":
    from optimum.exporters.onnx import main_export
    main_export(source, output=target, task="text-to-image", do_validation=False)
else:
    from optimum.intel import OVStableDiffusionPipeline
    OVStableDiffusionPipeline.from_pretrained(source, export=True, compile=False, load_in_8bit=False).save_pretrained(target)
"""


@dataclass(frozen=True)
class Timing:
    """One artifact against the peer of its runtime.

    Attributes:
        artifact: Who exported it, and the runtime.
        median_ms: Median over the rounds.
        ratio: Median over the rounds of this artifact's time divided by the peer's in the same round.
        low: Lower end of the ratio's 95 % bootstrap interval.
        high: Upper end.
        sqnr_db: Against the first artifact's output.
    """

    artifact: str
    median_ms: float
    ratio: float
    low: float
    high: float
    sqnr_db: float


def main() -> int:
    """Exports what is not there yet, measures, prints a table and writes the figures."""
    arguments = _arguments()
    work: Path = arguments.work
    source = make_pipeline(work / "pipeline")
    _export_qdx(source, work)
    peers = _export_peers(arguments.peers, source, work)
    calls = {
        name: _call(name, folder, arguments.threads)
        for name, folder in _artifacts(work, peers).items()
    }
    times = measure(calls, rounds=arguments.rounds)
    rows = summarize(times, {name: call() for name, call in calls.items()})
    result = {
        "processor": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "shapes": SHAPES,
        "versions": {
            name: version(name) for name in ("onnxruntime", "openvino", "torch", "diffusers")
        },
        "timings": [asdict(row) for row in rows],
        "times_ms": times,
    }
    (work / "float_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(table(rows))
    return 0


_PAUSE_S = 0.1


def measure(calls: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Times the calls in turns, in milliseconds; two rounds of warming up are not counted.

    Each round has its own order, and a pause before every call: the threads of ONNX Runtime spin for a
    while after a run, and whoever always came next would pay for it.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    random = np.random.default_rng(0)
    for index in range(rounds + 2):
        for name in random.permutation(list(calls)).tolist():
            call = calls[name]
            time.sleep(_PAUSE_S)
            start = time.perf_counter()
            call()
            if index >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def summarize(times: dict[str, list[float]], outputs: dict[str, Any]) -> list[Timing]:
    """Compares each artifact with the peer on its runtime, round by round."""
    random = np.random.default_rng(0)
    reference = next(iter(outputs.values()))
    rows = []
    for name, values in times.items():
        runtime = name.rpartition(" ")[2]
        peer = next((n for n in times if n.endswith(runtime) and not n.startswith("qdx")), name)
        ratios = np.asarray(values) / np.asarray(times[peer])
        draws = np.median(ratios[random.integers(0, len(ratios), (10_000, len(ratios)))], axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append(
            Timing(
                name,
                float(np.median(values)),
                float(np.median(ratios)),
                float(low),
                float(high),
                sqnr_db(reference, outputs[name]),
            )
        )
    return rows


def sqnr_db(reference: Any, other: Any) -> float:
    """Signal to quantization noise ratio in decibels; infinite for equal arrays."""
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    noise = float(np.sum(np.square(reference.astype(np.float64) - other)))
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))


def table(rows: list[Timing]) -> str:
    """The figures as text."""
    lines = [
        f"{'artifact':34} {'median ms':>10} {'ratio to peer':>14} {'95 % interval':>18} {'SQNR dB':>8}"
    ]
    lines += [
        f"{row.artifact:34} {row.median_ms:10.1f} {row.ratio:14.3f}"
        f" {f'{row.low:.3f} .. {row.high:.3f}':>18} {row.sqnr_db:8.1f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _export_qdx(source: Path, work: Path) -> None:
    from qdx.backends.layout import graph_in_layout
    from qdx.backends.registry import get_backend
    from qdx.exporter.plan.resolve.resolution import FloatTypes
    from qdx.targets.profile import load_target

    missing = [name for name in ("onnxruntime", "openvino") if not (work / f"qdx-{name}").exists()]
    if not missing:
        return
    graph = unet_graph(source)
    for name in missing:
        folder = work / f"qdx-{name}"
        folder.mkdir(parents=True)
        profile = load_target(name)
        face = graph_in_layout(graph, profile.layout)
        get_backend(name).lower(face, FloatTypes("float32"), profile, folder)


def _export_peers(python: Path | None, source: Path, work: Path) -> list[str]:
    exported = []
    for kind in ("onnx", "openvino"):
        target = work / f"optimum-{kind}"
        if not target.exists() and python is not None:
            subprocess.run(  # noqa: S603  # the caller's own interpreter
                [str(python), "-c", PEER_EXPORT, kind, str(source), str(target)], check=True
            )
        if target.exists():
            exported.append(kind)
    return exported


def _artifacts(work: Path, peers: list[str]) -> dict[str, Path]:
    found = {
        "qdx onnxruntime": work / "qdx-onnxruntime",
        "optimum-onnx onnxruntime": work / "optimum-onnx" / "unet",
        "qdx openvino": work / "qdx-openvino",
        "optimum-intel openvino": work / "optimum-openvino" / "unet",
    }
    absent = {"optimum-onnx onnxruntime": "onnx", "optimum-intel openvino": "openvino"}
    return {
        name: path for name, path in found.items() if name not in absent or absent[name] in peers
    }


def _call(name: str, folder: Path, threads: int) -> Callable[[], Any]:
    from qdx.backends.registry import get_backend
    from qdx.targets.profile import load_target

    runtime = name.rpartition(" ")[2]
    runner = get_backend(runtime).open(folder, load_target(runtime).options, threads=threads)
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        k: random.standard_normal(s, dtype=np.float32) for k, s in SHAPES.items()
    }
    for spec in runner.inputs:
        if spec.name == "timestep":
            shape = [1 if isinstance(size, str) else size for size in spec.shape]
            arrays["timestep"] = np.full(shape, 500, dtype=spec.dtype)
    inputs = {spec.name: arrays[spec.name] for spec in runner.inputs}
    output = runner.outputs[0].name
    return lambda: runner(inputs)[output]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--work", type=Path, default=Path("build/float_speed"), help="where artifacts are kept"
    )
    parser.add_argument(
        "--peers", type=Path, help="Python of an environment with optimum-onnx and optimum-intel"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
