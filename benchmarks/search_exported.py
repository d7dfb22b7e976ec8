"""Found plans on exported artifacts: what a search promises of a graph against what the file of a target computes.

    python -m benchmarks.search_exported --work build/exported
    python -m benchmarks.search_exported --work build/exported --targets coreml --models shapes

For each target a plan of weights alone is found with what the target stores: integers of 4 and 8 bits, on Core ML palettes of 2, 3,
4, 6 and 8. It is exported and verified: SQNR of the denoiser's prediction on the verification's own calls, noise averaged over them,
of the quantized graph and of the artifact; and the least SQNR of the artifact against the graph. What runs the artifact is what
`qdx verify` has for the target: OpenVINO and ONNX Runtime themselves, ONNX Runtime for files of TensorRT, the interpreter of MIL for
Core ML.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.search_yardstick import SAMPLES, Work, run_qdx

INTEGERS: Final = "int4,int4*1.15,int8"


@dataclass(frozen=True)
class Asked:
    """What is searched for a target.

    Attributes:
        options: Of the analysis.
        average_bits: The budget, scales and tables included.
    """

    options: str
    average_bits: float


TARGETS: Final = {
    "openvino": Asked(INTEGERS, 5.2),
    "onnxruntime": Asked(INTEGERS, 5.2),
    "tensorrt": Asked("int4:block64,int8", 7.0),
    "coreml": Asked("palette2,palette3,palette4,palette6,palette8", 4.2),
}


def main() -> None:
    """Prints a row for each sample and target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=["shapes", "shapes-mmdit"], choices=list(SAMPLES))  # fmt: skip
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--measurements", type=int)
    parser.add_argument("--predicted", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.models:
        for target in arguments.targets:
            folder = arguments.work / target
            folder.mkdir(parents=True, exist_ok=True)
            asked = TARGETS[target]
            work = Work(
                SAMPLES[name], folder, arguments.workers, target, asked.options,
                arguments.measurements, arguments.predicted,
            )  # fmt: skip
            sys.stdout.write(f"| {' | '.join(row(work, asked))} |\n")
            sys.stdout.flush()


def row(work: Work, asked: Asked) -> Sequence[str]:
    """Sample, target, bits, and decibels of search, uniform, graph, artifact, artifact against graph, and picture."""
    work.analyzed()
    found = work.found("exported", f"average_bits={asked.average_bits:g}")
    figures = found["plan"]["found"]
    report = verified(work)
    (method,) = (
        component["methods"]["forward"]
        for name, component in report["components"].items()
        if name in {"unet", "transformer"}
    )
    rungs = {one["name"]: one for one in method["rungs"]}
    uniform = figures.get("uniform") or {}
    return (
        work.sample.name,
        work.target,
        f"{figures['average_bits']:.2f}",
        f"{uniform.get('sqnr_db', math.nan):.1f}",
        f"{(figures.get('measured') or figures['predicted'])['sqnr_db']:.1f}",
        f"{_mean_noise_db(rungs['quantized']):.1f}",
        f"{_mean_noise_db(rungs['artifact']):.1f}",
        f"{rungs['artifact']['previous_sqnr_db_min']:.1f}",
        f"{report['pipeline']['psnr_db']:.1f}",
    )


def verified(work: Work) -> dict[str, Any]:
    """Exports and verifies where that is not done, and returns the report."""
    bundle, report = (work.folder / f"{work.sample.name}-{kind}" for kind in ("bundle", "report"))
    if not bundle.exists():
        run_qdx(
            "export", work.model, "--target", work.target,
            "--plan", work.folder / f"{work.sample.name}-exported.json",
            "--call", json.dumps(dict(work.sample.call)), "-o", bundle,
        )  # fmt: skip
    if not (report / "report.json").exists():
        run_qdx("verify", bundle, "--model", work.model, "--report", report, check=False)
    loaded: dict[str, Any] = json.loads((report / "report.json").read_text())
    return loaded


def _mean_noise_db(rung: Mapping[str, Any]) -> float:
    noise = [10 ** (-one["float_sqnr_db"] / 10) for one in rung["calls"]]
    return -10 * math.log10(sum(noise) / len(noise))


if __name__ == "__main__":
    main()
