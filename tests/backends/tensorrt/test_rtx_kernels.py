"""The kernel tables of TensorRT-RTX against its real builder, which needs no device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.rtx_kernels import cases, compiled
from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.produce import lint_file
from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.lint import DeviceFacts
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.plan.resolve.feasibility import Request
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tensorrt_rtx import needs_rtx
from tests.support.tracing import graph_of

pytestmark = needs_rtx

CASES = {(case.subject, case.what): case for case in cases()}
TARGETS = {
    "75": "rtx-turing",
    "80": "tensorrt-rtx",
    "86": "rtx-ampere",
    "89": "rtx-ada",
    "120": "rtx-blackwell",
}
"""By compute capability."""
W8, W4 = Weights(dtype="int8"), Weights(dtype="int4", granularity="block", block=64)
F8, A8, AF8 = Weights(dtype="float8_e4m3fn"), Inputs(dtype="int8"), Inputs(dtype="float8_e4m3fn")
NVFP4 = Weights(dtype="nvfp4", granularity="block", block=16)
A_NVFP4 = Inputs(dtype="nvfp4", granularity="block", mode="dynamic")
SIXTEEN = {"storage": "float16", "reduced": 256}
ROWS = {
    ("linear", "int8 by channel, int8"): Request("linear", W8, A8, **SIXTEEN),
    ("linear", "int8 by channel, float"): Request("linear", W8, None, **SIXTEEN),
    ("linear", "int8 by channel, float, in float32"): Request("linear", W8, None, reduced=256),
    ("linear", "fp8 by channel, fp8"): Request("linear", F8, AF8, **SIXTEEN),
    ("linear", "fp8 by channel, float"): Request("linear", F8, None, **SIXTEEN),
    ("linear", "int4 in blocks of 64, float"): Request("linear", W4, None, **SIXTEEN),
    ("linear", "int4 in one block of 64, float"): Request("linear", W4, None, storage="float16", reduced=64),
    ("linear", "nvfp4, nvfp4"): Request("linear", NVFP4, A_NVFP4, **SIXTEEN),
    ("linear", "nvfp4, float"): Request("linear", NVFP4, None, **SIXTEEN),
    ("convolution", "int8, int8"): Request("conv2d", W8, A8, kernel=9, **SIXTEEN),
    ("convolution", "int8, int8, 1-d"): Request("conv1d", W8, A8, kernel=3, **SIXTEEN),
    ("convolution", "int8, int8, 3-d"): Request("conv3d", W8, A8, kernel=27, **SIXTEEN),
    ("convolution", "int8, int8, 4 groups"): Request("conv2d", W8, A8, kernel=9, **SIXTEEN),
    ("convolution", "int8, int8, by channel apart"): Request("conv2d", W8, A8, kernel=9, **SIXTEEN),
    ("convolution", "int8 by channel, float"): Request("conv2d", W8, None, kernel=9, **SIXTEEN),
    ("convolution", "fp8, fp8, 1x32"): Request("conv2d", F8, AF8, kernel=32, **SIXTEEN),
    ("convolution", "fp8, fp8, 1x33"): Request("conv2d", F8, AF8, kernel=33, **SIXTEEN),
    ("convolution", "fp8, fp8, 1-d"): Request("conv1d", F8, AF8, kernel=3, **SIXTEEN),
    ("convolution", "fp8, fp8, 3-d"): Request("conv3d", F8, AF8, kernel=27, **SIXTEEN),
    **{
        ("attention", f"int8, heads of {head}"): Request("qk", None, A8, head=head, keys=256, storage="float16")
        for head in (16, 32, 40, 64, 80)
    },
    **{
        ("attention", f"int8, {keys} keys"): Request("qk", None, A8, head=64, keys=keys, storage="float16")
        for keys in (77, 512, 513)
    },
    **{
        ("attention", f"fp8, heads of {head}"): Request("qk", None, AF8, head=head, keys=256, storage="float16")
        for head in (16, 40, 256, 264)
    },
    **{
        ("attention", f"fp8, {keys} keys"): Request("qk", None, AF8, head=64, keys=keys, storage="float16")
        for keys in (31, 32)
    },
}  # fmt: skip
"""Rows of the benchmark, and the same as requests to a target."""


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("row", ROWS, ids=": ".join)
def test_a_target_says_of_an_operation_what_the_builder_makes_of_it(row, capability):
    """Refused by both, or in low precision and no slower than floats by both, or by neither."""
    case, target = CASES[row], load_target(TARGETS[capability])
    layers, why = compiled(case.model(), capability)
    offer = target.offer(ROWS[row])
    offered = ROWS[row].storage in target.storage_dtypes and offer.form != "refused"

    assert offered == (not why), offer.why
    if offered:
        cell = case.classify(layers)
        narrow = "memory" not in cell and "float" not in cell and "apart" not in cell
        assert (offer.slower is None) == narrow, cell
        assert (offer.form == "native") == (narrow or "apart" in cell), cell


class Convolved(nn.Module):
    """A convolution of some rank, in groups."""

    def __init__(self, rank):
        super().__init__()
        self.conv = getattr(nn, f"Conv{rank}d")(32, 32, 3, padding=1, groups=2)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(("scheme", "narrow"), [((W8, A8), "Int8"), ((F8, AF8), "FP8")])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_rank_are_written_so_that_they_compute_in_8_bits(
    rank, scheme, narrow, tmp_path
):
    profile, backend = load_target("rtx-ada"), get_backend("tensorrt-rtx")
    graph, _ = graph_of(lambda: Convolved(rank), {"x": torch.ones(1, 32, *[8] * rank)})
    plan = replace(
        resolved(graph, lambda site: scheme if site.op == f"conv{rank}d" else (None, None)),
        components=(SimpleNamespace(component="block", becomes="float16"),),
    )
    placement = backend.place(graph, sites(graph), plan, FixedRanges())
    lower(insert(graph, sites(graph), placement), FloatTypes("float16"), profile, tmp_path)
    facts = DeviceFacts(RTX.supported, (8, 9), flavour=RTX)
    layers, why = compiled(tmp_path / "model.onnx", "89")

    assert lint_file(tmp_path / "model.onnx", facts) == ()
    assert why == ""
    (product,) = [
        layer for layer in layers if "conv/Conv" in layer.nodes and layer.kind == "correlation"
    ]
    assert product.types("Inputs") == [narrow]
    assert narrow in product.types("Constants")
