"""All gates of the samples' plans, with ranges of different calibrations.

    python -m benchmarks.calibration_gates shapes shapes-mmdit --candidates 8x50 4x25@0.25 --work build/calibration-gates

Candidates are those of `benchmarks.calibration_defaults`. Each is exported for OpenVINO with a call of 20 steps and
verified by `qdx.verify`. What is measured is kept in the folder of `--work`: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import qdx
from benchmarks.calibration_defaults import SUBJECTS, Candidate, Measurement
from qdx.exporter.calibrate.ranges_file import save_ranges
from qdx.exporter.plan.schema.load import load_plan
from qdx.source.pipeline import trace_pipeline

_TARGET: Final = "openvino"
_STEPS: Final = 20
_COLUMNS: Final = {
    "worst step, dB": r"(unet|transformer)\.sqnr_db",
    "lowering, dB": r".*\.lowering\.sqnr_db",
    "guidance, of float": r".*\.conditioning\.ratio_(min|max)",
    "executed": r".*\.audit\.executed_share",
    "PSNR, dB": r"pipeline\.psnr_db",
    "SSIM": r"pipeline\.ssim",
}
"""Gates that have a column of their own, by the form of their names."""

Result = Mapping[str, Any]


def measure(name: str, plan: str | Path, candidate: Candidate, work: Path) -> Result:
    """Calibrates, exports and verifies one plan of a subject."""
    subject = SUBJECTS[name]
    model = subject.folder(work)
    call = {**subject.call, "num_inference_steps": _STEPS}
    source = trace_pipeline(model, dict(call))
    ranges = Measurement(name, subject, source).ranges(load_plan(plan), candidate, 0)
    file, bundle = work / "ranges.qdx", work / "bundle"
    save_ranges(ranges, file)
    qdx.export(model, target=_TARGET, plan=plan, output=bundle, call=call, ranges=file, force=True)
    report = qdx.verify(bundle, model=model)
    label = plan if isinstance(plan, str) else plan.stem
    return {
        "subject": name,
        "plan": label,
        "candidate": str(candidate),
        "gates": [gate.to_json() for gate in report.gates],
    }


def table(results: Sequence[Result]) -> str:
    """One line for each plan and candidate."""
    head = ["plan", "calibration", "gates passed", *_COLUMNS]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for result in results:
        gates = result["gates"]
        passed = sum(gate["ok"] for gate in gates)
        plan, subject = result["plan"], result["subject"]
        cells = [
            plan if plan.startswith(subject) else f"{subject}, {plan}",
            result["candidate"],
            f"{passed} of {len(gates)}",
            *(_cell(gates, form) for form in _COLUMNS.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(gates: Sequence[Result], form: str) -> str:
    """Values and bounds of the gates with names of this form."""
    found = [gate for gate in gates if re.fullmatch(form, gate["name"])]
    signs = {"at least": ">=", "at most": "<="}
    return ", ".join(
        f"{gate['value']:.4g} ({signs[gate['sense']]} {gate['bound']:g})"
        if gate["value"] is not None
        else "none"
        for gate in found
    )


def main() -> int:
    """Measures what is not kept yet and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="+", choices=SUBJECTS)
    parser.add_argument("--candidates", nargs="+", type=Candidate.of, required=True)
    parser.add_argument("--plans", nargs="*", default=None, help="only plans of these names")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=None, help="also write the results here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = arguments.work / "calibration_gates.jsonl"
    results = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    known = {(each["subject"], each["plan"], each["candidate"]) for each in results}
    for name in arguments.subjects:
        for plan in SUBJECTS[name].plans:
            label = plan if isinstance(plan, str) else plan.stem
            for candidate in arguments.candidates:
                unwanted = arguments.plans is not None and label not in arguments.plans
                if unwanted or (name, label, str(candidate)) in known:
                    continue
                results.append(measure(name, plan, candidate, arguments.work))
                with kept.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    sys.stdout.write(table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
