"""Values that float16 does not hold are known from what calibration recorded."""

from __future__ import annotations

import torch

from qdx.exporter.calibrate.magnitudes import large_ports
from qdx.exporter.calibrate.ranges import GraphRanges
from qdx.exporter.calibrate.streaming import StreamingStatistics


def _statistics(*values: float):
    stream = StreamingStatistics(2, None, channels=None, elements=2, device=torch.device("cpu"))
    assert stream.add(torch.tensor([values]), 1)
    return stream.finish()


def test_ports_whose_values_come_near_the_end_of_float16():
    tensors = (_statistics(-4e4, 1.0), _statistics(7e4, 0.0), _statistics(1e4, -1e4))
    ports = {"conv": {"input": 2, "output": 0}, "linear": {"input": 0, "output": 1}}

    found = large_ports(GraphRanges((), (), tensors, ports))

    assert found == {
        ("conv", "output"): 4e4,
        ("linear", "input"): 4e4,
        ("linear", "output"): 7e4,
    }
