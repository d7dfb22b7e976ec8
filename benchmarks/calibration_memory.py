"""Whether the memory of a calibration grows with the number of its calls.

    python -m benchmarks.calibration_memory --calls 240 --work build/calibration-memory

Calibrates the 80-million UNet with one worker, in this process, and reads `RssAnon` after every call of a component.
The slope is that of the least-squares line through the calls after the first tenth, in which memory is taken that stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.pipelines import make_pipeline
from qdx.calibration.record import record_ranges
from qdx.exporter.cost.memory import anonymous_bytes
from qdx.exporter.plan.schema.load import load_plan, preset_text
from qdx.exporter.progress import Task
from qdx.source.pipeline import trace_pipeline

__all__ = ["BOUND_BYTES_PER_CALL", "CallMemory", "slope_bytes_per_call"]

BOUND_BYTES_PER_CALL = 100_000
_SETTLED = 0.1
_STEPS = 30


@dataclass
class CallMemory:
    """A place to report to that reads the anonymous memory of this process whenever a unit of a task is done.

    Attributes:
        bytes_after_call: What was read, of all tasks in a row.
    """

    bytes_after_call: list[int] = field(default_factory=list)

    @contextmanager
    def task(self, name: str, total: int | None = None, *, unit: str = "") -> Iterator[Task]:
        """Begins a task."""
        del name, total, unit
        yield self

    def advance(self, n: int = 1) -> None:
        """Reads the memory."""
        self.bytes_after_call += [anonymous_bytes()] * n

    def expect(self, seconds_left: float) -> None:
        """Does nothing."""

    def say(self, text: str) -> None:
        """Does nothing."""


def slope_bytes_per_call(bytes_after_call: Sequence[int]) -> float:
    """Bytes that each call adds, by the least-squares line through the calls after the first tenth."""
    settled = bytes_after_call[int(len(bytes_after_call) * _SETTLED) :]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0])


def main() -> None:
    """Calibrates, and prints slope and peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=240, help="of the UNet, about")
    parser.add_argument("--observed", type=float, default=0.5, help="share of the steps")
    parser.add_argument("--work", type=Path, required=True, help="a folder with room for the model")
    parser.add_argument("--json", type=Path, default=None, help="also write every reading here")
    arguments = parser.parse_args()
    samples = max(1, round(arguments.calls / _STEPS))
    plan = json.loads(preset_text("w8a8"))
    plan["calibration"] = {"samples": samples, "steps": _STEPS, "observed": arguments.observed}
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / "plan.json"
    file.write_text(json.dumps(plan))
    seen = CallMemory()
    source = trace_pipeline(make_pipeline(arguments.work / "unet-80m"), {}, components=["unet"])
    record_ranges(source, load_plan(file), {}, workers=1, progress=seen)
    slope = slope_bytes_per_call(seen.bytes_after_call)
    sys.stdout.write(
        f"{len(seen.bytes_after_call)} calls: {slope / 1e6:+.3f} MB a call "
        f"(bound {BOUND_BYTES_PER_CALL / 1e6:g}), peak {max(seen.bytes_after_call) / 1e6:.0f} MB anonymous\n"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(seen.bytes_after_call) + "\n")
    if slope > BOUND_BYTES_PER_CALL:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
