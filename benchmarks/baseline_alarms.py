"""Whether `qdx verify --baseline` catches what is worse, and lets noise through: good runs, and planted drops.

Good runs differ from the baseline in what changes the last bits and nothing else: numbers of threads, exports made with
other numbers of threads; and, where means of several runs are compared, in their seeds: of one verification of many seeds,
every five are held against every other five. Planted ones scale the weights of the UNet's last convolution by so much that
its error has a given number of decibels more.

The figures in benchmarks/README.md are of:

    python -m benchmarks.baseline_alarms --work build/baseline-alarms
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnx import numpy_helper

from qdx.bundle.manifest import MANIFEST_NAME
from qdx.bundle.seal import seal_of
from qdx.compile.export import export
from qdx.exporter.files import dump_json, load_json, sha256_file
from qdx.verification.judge.baseline import RUNS_AT_LEAST, gates_between
from qdx.verification.judge.drop import DROP_DB
from qdx.verification.judge.measures import compared_measures
from qdx.verification.report.model import Report
from qdx.verification.stored.baseline import StoredBaseline, StoredMeasure
from qdx.verification.verify import verify

MODEL: Final = Path(__file__).parents[1] / "samples" / "shapes"
CALL: Final = {"prompt": "a red circle", "num_inference_steps": 4}
PLAN: Final = "w8a8"
TARGET: Final = "onnxruntime"
GROUP: Final = RUNS_AT_LEAST


def main() -> None:
    """Prints a line for each run and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and reports")
    parser.add_argument("--seeds", type=int, default=50, help="of the groups, all together")
    arguments = parser.parse_args()
    work: Path = arguments.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    good = [run_said(*one) for one in good_runs(work)]
    planted = [run_said(*one) for one in planted_runs(work)]
    groups = group_alarms(work / "bundle", arguments.seeds)
    print(f"good runs: {len(good)}, false alarms: {sum(good)}")
    print(f"planted drops: {len(planted)}, caught: {sum(planted)}")
    print(f"other seeds, five against five: {len(groups)}, false alarms: {sum(groups)}")


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
    """Verifications that are as good as their baseline."""
    bundle = exported(work / "bundle", threads=1)
    first(bundle, work / "baseline", threads=1)
    for threads in range(2, 12):
        yield verified(bundle, work / "baseline", f"{threads} threads", threads=threads)
    for threads in range(1, 11):
        again = exported(work / "again", threads=threads)
        name = f"exported again with {threads} threads"
        yield verified(again, work / "baseline", name, threads=1 + threads % 4)


def planted_runs(work: Path) -> Iterator[tuple[str, Report, float]]:
    """Verifications of artifacts that are worse."""
    bundle, baseline = work / "bundle", work / "baseline"
    before = load_json(baseline / "report.json")["components"]["unet"]["sqnr_db"]["min"]
    for drop_db in (2.0, 3.0, 6.0):
        worse = worsened(bundle, work / "worse", before, drop_db)
        yield verified(worse, baseline, f"planted {drop_db:g} dB", threads=2)


def group_alarms(bundle: Path, seeds: int) -> list[bool]:
    """Of one verification of many seeds, every group of runs against every other: whether it alarms."""
    torch.set_num_threads(2)
    report = verify(bundle, model=MODEL, seeds=seeds)
    measures = [
        one
        for one in compared_measures(report.stored, report.contract).values()
        if len(one.values) == seeds
    ]
    groups = [range(start, start + GROUP) for start in range(0, seeds - GROUP + 1, GROUP)]
    found = []
    for before, after in itertools.permutations(groups, 2):
        baseline = StoredBaseline(
            source="",
            bundle="",
            drop_db=DROP_DB,
            paired=False,
            measures=tuple(
                StoredMeasure(
                    name=one.name,
                    scale=one.scale_name,
                    values=tuple(one.values[run] for run in before),
                )
                for one in measures
            ),
        )
        now = {
            one.name: replace(one, values=tuple(one.values[run] for run in after))
            for one in measures
        }
        failed = [gate for gate in gates_between(baseline, now) if not gate.ok]
        if failed:
            print(
                f"seeds from {after.start} against {before.start}: " + "; ".join(map(str, failed))
            )
        found.append(bool(failed))
    return found


def exported(output: Path, *, threads: int, plan: str | Path = PLAN) -> Path:
    """A bundle, made anew."""
    torch.set_num_threads(threads)
    export(MODEL, target=TARGET, plan=plan, output=output, call=CALL, force=True)
    return output


def first(bundle: Path, report: Path, *, threads: int) -> None:
    """The report that others are held against."""
    torch.set_num_threads(threads)
    verify(bundle, model=MODEL, report=report)


def verified(bundle: Path, baseline: Path, name: str, *, threads: int) -> tuple[str, Report, float]:
    """One verification against a baseline."""
    started_s = time.perf_counter()
    torch.set_num_threads(threads)
    return name, verify(bundle, model=MODEL, baseline=baseline), started_s


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


if __name__ == "__main__":
    main()
