"""What it costs to import quantized weights: processor time of each step for one matrix, and memory of the file.

Run from the repository root:

    python -m benchmarks.import_cost --side 4096
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from qdx.exporter.formats.given import check_parts, values_of
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.transforms.given_file import Given, read_given, write_given
from qdx.importing.result import by_channel

__all__ = ["main"]


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Prints a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    side = parser.parse_args().side
    torch.set_num_threads(1)
    weight = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().amax(dim=1) / 127
    one = by_channel("int8", (weight / scale[:, None]).round().to(torch.int8), scale)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.qdx"
        given = Given("tool", {"unet": {"a.weight": one}})
        steps: dict[str, Callable[[], object]] = {
            "check": lambda: check_parts((side, side), one.quantization, one.parts),
            "compare": lambda: sqnr_db(weight, values_of(one)),
            "write": lambda: write_given(path, given),
            "open": lambda: read_given(path),
        }
        for name, work in steps.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            taken = _seconds(work)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(
                f"{name:8} {taken:.3f} s, {taken / side**2 * 1e9:.1f} s for 10^9 weights, {more:.0f} MB more"
            )


if __name__ == "__main__":
    main()
