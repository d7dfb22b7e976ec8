"""Whether `qdx verify --baseline` catches what is worse, and lets noise through: good runs, and planted drops.

Good runs differ from the baseline in what changes the last bits and nothing else: numbers of threads, exports made with
other numbers of threads, and, of reports with several runs, other seeds. Planted ones scale the weights of the UNet's last
convolution by so much that its error has a given number of decibels more, and use a plan with fewer bits.

The figures in benchmarks/README.md are of:

    python -m benchmarks.baseline_alarms --work build/baseline-alarms
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnx import numpy_helper

from qdx.bundle.manifest import MANIFEST_NAME
from qdx.bundle.seal import seal_of
from qdx.compile.export import export
from qdx.exporter.files import dump_json, load_json, sha256_file
from qdx.verification.report.model import Report
from qdx.verification.verify import verify

MODEL: Final = Path(__file__).parents[1] / "samples" / "shapes"
CALL: Final = {"prompt": "a red circle", "num_inference_steps": 4}
PLAN: Final = "w8a8"
TARGET: Final = "onnxruntime"
SEEDS: Final = 5


def main() -> None:
    """Prints a line for each run and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and reports")
    arguments = parser.parse_args()
    work: Path = arguments.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    good = [run_said(*one) for one in good_runs(work)]
    planted = [run_said(*one) for one in planted_runs(work)]
    print(f"good runs: {len(good)}, false alarms: {sum(good)}")
    print(f"planted drops: {len(planted)}, caught: {sum(planted)}")


def run_said(name: str, report: Report, started_s: float) -> bool:
    """Says what a run came to; whether a gate of the baseline failed."""
    held = [gate for gate in report.gates if gate.name.startswith("baseline.")]
    failed = [gate for gate in held if not gate.ok]
    words = "; ".join(map(str, failed)) or "no alarm"
    print(
        f"{name}: {len(held)} measures, {words} ({time.perf_counter() - started_s:.0f} s)",
        flush=True,
    )
    return bool(failed)


def good_runs(work: Path) -> Iterator[tuple[str, Report, float]]:
    """Twenty verifications that are as good as their baseline."""
    bundle = exported(work / "bundle", threads=1)
    first(bundle, work / "baseline", threads=1)
    for threads in (2, 3, 4):
        yield verified(bundle, work / "baseline", f"{threads} threads", threads=threads)
    for threads in (1, 2, 3, 4):
        again = exported(work / f"bundle-{threads}", threads=threads)
        name = f"exported again with {threads} threads"
        yield verified(again, work / "baseline", name, threads=5 - threads)
        shutil.rmtree(again)
    first(bundle, work / "baseline-seeds", threads=1, seeds=SEEDS)
    for number, seed in enumerate(range(100, 1400, 100)):
        name = f"{SEEDS} seeds from {seed} on"
        yield verified(
            bundle, work / "baseline-seeds", name, threads=1 + number % 4, seed=seed, seeds=SEEDS
        )  # fmt: skip


def planted_runs(work: Path) -> Iterator[tuple[str, Report, float]]:
    """Verifications of artifacts that are worse."""
    bundle, baseline = work / "bundle", work / "baseline"
    before = load_json(baseline / "report.json")["components"]["unet"]["sqnr_db"]["min"]
    for drop_db in (2.0, 3.0, 6.0):
        worse = worsened(bundle, work / "worse", before, drop_db)
        yield verified(worse, baseline, f"planted {drop_db:g} dB", threads=2)
    seeds = worsened(bundle, work / "worse", before, 3.0)
    yield verified(
        seeds, work / "baseline-seeds", f"planted 3 dB, {SEEDS} other seeds", threads=2, seed=900, seeds=SEEDS
    )  # fmt: skip
    fewer = exported(work / "fewer", threads=1, plan=fewer_bits(work))
    yield verified(fewer, baseline, "4 bits for the weights of attention", threads=1)


def exported(output: Path, *, threads: int, plan: str | Path = PLAN) -> Path:
    """A bundle, made anew."""
    torch.set_num_threads(threads)
    export(MODEL, target=TARGET, plan=plan, output=output, call=CALL, force=True)
    return output


def first(bundle: Path, report: Path, *, threads: int, seeds: int = 1) -> None:
    """The report that others are held against."""
    torch.set_num_threads(threads)
    verify(bundle, model=MODEL, report=report, seeds=seeds)


def verified(
    bundle: Path, baseline: Path, name: str, *, threads: int, seed: int = 0, seeds: int = 1
) -> tuple[str, Report, float]:
    """One verification against a baseline."""
    started_s = time.perf_counter()
    torch.set_num_threads(threads)
    report = verify(bundle, model=MODEL, baseline=baseline, seed=seed, seeds=seeds)
    return name, report, started_s


def worsened(bundle: Path, output: Path, before_db: float, drop_db: float) -> Path:
    """A copy whose UNet answers so much louder that its error has more decibels: all of it else is as it was."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(bundle, output)
    # The two errors are unrelated, so their energies add up.
    louder = (10 ** (drop_db / 10) - 1) ** 0.5 * 10 ** (-before_db / 20)
    path = next(output.glob("unet/**/*.onnx"))
    model = onnx.load(path)
    tensors = {one.name: one for one in model.graph.initializer}
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Conv")
    made = {name: node for node in model.graph.node for name in node.output}
    for name in last.input[1:]:
        # Of a quantized weight it is the scale that is louder.
        louder_one = name if name in tensors else made[name].input[1]
        old = numpy_helper.to_array(tensors[louder_one])
        tensors[louder_one].CopyFrom(
            numpy_helper.from_array((old * (1 + louder)).astype(old.dtype), louder_one)
        )
    onnx.save(model, path, save_as_external_data=False)
    for leftover in path.parent.glob(f"{path.name}[._]data"):
        leftover.unlink()
    sealed(output)
    return output


def sealed(bundle: Path) -> None:
    """Lists the files anew, as the export of a worse artifact would."""
    manifest: dict[str, Any] = load_json(bundle / MANIFEST_NAME)
    manifest["files"] = [
        {"path": one["path"], "size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for one in manifest["files"]
        if (path := bundle / one["path"]).exists()
    ]
    (bundle / MANIFEST_NAME).write_bytes(
        dump_json({**manifest, "content_sha256": seal_of(manifest)})
    )


def fewer_bits(work: Path) -> Path:
    """A plan like the preset, with 4 bits for the weights of attention."""
    path = Path(__file__).parents[1] / "exporter" / "plan" / "presets" / f"{PLAN}.json"
    plan = json.loads(path.read_text())
    rule = {"select": {"component": "unet", "role": "attn.*"}, "weights": {"dtype": "int4"}}
    plan["rules"].insert(1, rule)
    target = work / "fewer.json"
    target.write_text(json.dumps(plan))
    return target


if __name__ == "__main__":
    main()
