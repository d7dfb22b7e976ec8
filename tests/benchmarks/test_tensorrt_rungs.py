"""Every family and sample, lowered for TensorRT in every precision: no rule is broken, and the file computes what the graph does."""

from __future__ import annotations

import pytest

from benchmarks.tensorrt_rungs import PLANS, SAMPLES, capture, measure, pipelines
from tests.support.tiny import FAMILIES

# Rotary embeddings in complex numbers, which torch's exporter to ONNX does not decompose.
UNTRANSLATED = {"qwenimage"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in FAMILIES if name not in UNTRANSLATED), *SAMPLES])  # fmt: skip
def test_every_graph_in_every_precision(name, tmp_path):
    ((_, model, call),) = pipelines([name], tmp_path)
    captured = capture(model, call)

    for plan in PLANS:
        rungs = list(measure(name, captured, plan, tmp_path / "made"))
        assert rungs, plan
        assert [rung for rung in rungs if not rung.ok] == []
