"""Speed and memory of bundles, against each other and against what other tools made.

`contenders` says who takes part, `calls` with which inputs, `worker` is the process of one contender, `process` its
handle, `rounds` takes the turns, `report` says what came out.
"""

from __future__ import annotations

from qdx.bench.bench import bench
from qdx.bench.report import BenchReport

__all__ = ["BenchReport", "bench"]
