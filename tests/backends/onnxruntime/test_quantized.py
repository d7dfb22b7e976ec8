"""What the runtime makes of quantized operations: the kernels it chooses, and their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.onnxruntime.audit import audit
from qdx.exporter.errors import InvalidBundle, TargetRefusal
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.placement import Placement
from tests.support.onnxruntime_quantized import A8, W8, FixedRanges, lowered, weighted
from tests.support.processor import SEVEN_BITS
from tests.support.tracing import graph_of, sqnr_db

EXACT_DB = 100.0
"""The same integers, summed in another order where floats follow."""
CLOSE_DB = 60.0
"""As the reference, a rare rounding of an activation apart."""
OUTPUT_CLOSE_DB = 50.0
"""Where the output is rounded as well: a rare step of the output apart."""


class One(nn.Module):
    """One operation as the attribute `op`."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x) * 1.5


class Timed(One):
    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        return self.op(x) * 1.5


class Sum(nn.Module):
    """Two linear operations on one tensor, and one behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.a(x) + self.b(x)))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + 1


def image(channels: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(2))


def tokens(*leading: int, size: int = 64) -> torch.Tensor:
    return torch.randn(*leading, size, generator=torch.Generator().manual_seed(2))


def without_outputs(placement: Placement) -> Placement:
    return replace(placement, sites=tuple(replace(s, output=None) for s in placement.sites))


CASES: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, str]] = {
    "conv": (lambda: nn.Conv2d(32, 24, 3, padding=1), image(), "QGemm"),
    "conv with unlike sides": (
        lambda: nn.Conv2d(32, 24, (3, 2), stride=(2, 1), padding=(0, 1)),
        image(),
        "QGemm",
    ),
    "conv with dilation": (lambda: nn.Conv2d(32, 24, 3, dilation=2), image(), "QLinearConv"),
    "conv without bias": (lambda: nn.Conv2d(32, 24, 3, bias=False), image(), "QGemm"),
    "conv with stride": (lambda: nn.Conv2d(32, 24, 3, stride=2), image(), "QGemm"),
    "depthwise conv": (lambda: nn.Conv2d(32, 32, 3, groups=32), image(), "QLinearConv"),
    "1x1 conv": (lambda: nn.Conv2d(32, 24, 1), image(), "QGemm"),
    "1x1 conv without bias": (lambda: nn.Conv2d(32, 24, 1, bias=False), image(), "QGemm"),
    "1x1 conv with stride": (lambda: nn.Conv2d(32, 24, 1, stride=2), image(), "QGemm"),
    "linear": (lambda: nn.Linear(64, 48), tokens(2, 10), "QGemm"),
    "linear on rank 4": (lambda: nn.Linear(64, 48), tokens(2, 3, 4), "QGemm"),
    "linear without bias": (
        lambda: nn.Linear(64, 48, bias=False),
        tokens(2, 10),
        "MatMulIntegerToFloat",
    ),
    "linear on a matrix": (lambda: nn.Linear(64, 48), tokens(10), "QGemm"),
}


WEIGHTS = {
    "int8": W8,
    "tensor": W8.model_copy(update={"granularity": "tensor"}),
    "asymmetric": W8.model_copy(update={"symmetric": False}),
    "uint8": Weights(dtype="uint8", symmetric=False),
    "seven bits": Weights(dtype="int8", reduce_range=True),
    "int4": Weights(dtype="int4"),
}
KINDS = ("conv", "depthwise conv", "linear", "linear without bias")
"""One case for each way to a kernel; these are tried with all weights."""


@pytest.mark.parametrize(
    ("case", "weights"),
    [(c, "int8") for c in CASES] + [(c, w) for c in KINDS for w in WEIGHTS if w != "int8"],
)
def test_eight_bit_kernels(case: str, weights: str, tmp_path: Path) -> None:
    make, x, kernel = CASES[case]
    graph, _ = graph_of(lambda: One(make()), {"x": x})

    result = lowered(graph, tmp_path, weighted(WEIGHTS[weights], A8))

    assert result.kernels() == {"op": (kernel, "int8")}
    fused = result.run({"x": x})
    literal = result.run({"x": x}, graph_optimization_level="disable")
    output = result.placement.sites[0].output
    # Without VNNI other kernels compute, whose sums of floats lie on either side of a tie now and then.
    exact = output is None or not SEVEN_BITS
    assert sqnr_db(torch.from_numpy(literal), fused) > (EXACT_DB if exact else OUTPUT_CLOSE_DB)
    if output is None:
        assert sqnr_db(result.reference({"x": x}), fused) > CLOSE_DB
    else:  # the bias is rounded, so a sum between two steps of the output may go either way
        steps = np.abs(result.reference({"x": x}).numpy() - fused) / (output.scale * 1.5)
        assert steps.max() < 1.01
        assert (steps > 0.5).mean() < 0.02


class Last(One):
    """An operation whose result is the graph's output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x)


@pytest.mark.parametrize("case", CASES)
def test_operations_at_the_end_of_a_graph(case: str, tmp_path: Path) -> None:
    make, x, kernel = CASES[case]
    graph, _ = graph_of(lambda: Last(make()), {"x": x})

    result = lowered(graph, tmp_path, weighted(W8, A8))

    assert result.kernels() == {"op": (kernel, "int8")}
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > 45


@pytest.mark.parametrize("case", ["conv", "1x1 conv", "linear"])
def test_dynamic_shapes(case: str, tmp_path: Path) -> None:
    make, x, kernel = CASES[case]
    x = torch.cat([x, x[:1]])
    auto = torch.export.Dim.AUTO
    moving = {index: auto for index in range(x.dim()) if index != (1 if x.dim() == 4 else 2)}
    graph, _ = graph_of(lambda: One(make()), {"x": x}, dynamic={"x": moving})

    result = lowered(graph, tmp_path, weighted(W8, A8))

    assert result.kernels() == {"op": (kernel, "int8")}
    other = x[:2] if x.dim() == 3 else x[:2, :, :6]
    assert sqnr_db(result.reference({"x": other}), result.run({"x": other})) > CLOSE_DB


def test_operations_on_one_tensor_share_its_quantizer(tmp_path: Path) -> None:
    graph, _ = graph_of(Sum, {"x": tokens(2, 5, size=32)})

    executed = lowered(graph, tmp_path, weighted(W8, A8)).executed()

    assert executed.count("QGemm") == 3
    assert executed.count("QuantizeLinear") == 2


def test_integers_pass_from_convolution_to_convolution(tmp_path: Path) -> None:
    graph, _ = graph_of(Chain, {"x": image(8)})

    executed = lowered(graph, tmp_path, weighted(W8, A8)).executed()

    assert executed.count("QLinearConv") == 2
    assert executed.count("QuantizeLinear") == 1


class TestPlantedFaults:
    """What the audit is for: each of these looks quantized in the file, and is not."""

    def test_convolution_without_output_quantizer(self, tmp_path: Path) -> None:
        graph, _ = graph_of(lambda: One(nn.Conv2d(32, 32, 3, groups=32)), {"x": image()})

        result = lowered(graph, tmp_path, weighted(W8, A8), change=without_outputs)

        assert result.kernels() == {"op": ("Conv", "float32")}

    @pytest.mark.parametrize("level", ["disable", "basic"])
    def test_no_fusion(self, tmp_path: Path, level: str) -> None:
        graph, _ = graph_of(lambda: One(nn.Linear(64, 48)), {"x": tokens(2, 10)})

        result = lowered(graph, tmp_path, weighted(W8, A8))

        assert result.kernels(graph_optimization_level=level) == {"op": ("Gemm", "float32")}

    def test_weights_without_zero_points(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qdx.backends.onnxruntime import lower as module

        kept = tuple(each for each in module.BOUND_PASSES if each.__name__ != "write_zero_points")
        monkeypatch.setattr(module, "BOUND_PASSES", kept)
        graph, _ = graph_of(lambda: One(nn.Linear(64, 48)), {"x": tokens(2, 10)})

        assert lowered(graph, tmp_path, weighted(W8, A8)).kernels() == {"op": ("Gemm", "float32")}

    def test_float_bias(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from qdx.backends.onnxruntime import lower as module

        kept = tuple(each for each in module.BOUND_PASSES if each.__name__ != "quantize_biases")
        monkeypatch.setattr(module, "BOUND_PASSES", kept)
        graph, _ = graph_of(lambda: One(nn.Linear(64, 48)), {"x": tokens(2, 10)})

        assert lowered(graph, tmp_path, weighted(W8, A8)).kernels() == {"op": ("Gemm", "float32")}

    def test_weight_only_with_rounded_inputs(self, tmp_path: Path) -> None:
        graph, _ = graph_of(lambda: One(nn.Linear(64, 48)), {"x": tokens(2, 10)})
        result = lowered(graph, tmp_path, weighted(W8, None))
        level = {"session.qdq_matmulnbits_accuracy_level": "4"}

        assert result.kernels(**level) == {"op": ("MatMulNBits", "int8")}
        reference = result.reference({"x": tokens(2, 10)})
        assert sqnr_db(reference, result.run({"x": tokens(2, 10)}, **level)) < CLOSE_DB


def test_a_bias_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def make() -> nn.Module:
        module = One(nn.Linear(8, 4))
        with torch.no_grad():
            module.op.weight[1] = 1e-12
            module.op.bias[1] = 1.0
        return module

    graph, _ = graph_of(make, {"x": tokens(2, 3, size=8)})

    with pytest.raises(TargetRefusal, match=r"`op.bias`: the bias of a channel with next to no"):
        lowered(graph, tmp_path, weighted(W8, A8))


WEIGHT_ONLY: dict[str, Weights] = {
    "int8": W8,
    "int8 tensor": Weights(dtype="int8", granularity="tensor"),
    "int4": Weights(dtype="int4"),
    "int8 block": Weights(dtype="int8", granularity="block", block=32),
    "int4 block": Weights(dtype="int4", granularity="block", block=32),
    "uint4 block": Weights(dtype="uint4", granularity="block", block=16, symmetric=False),
}


@pytest.mark.parametrize("shape", [(2, 10), (10,)], ids=["tokens", "matrix"])
@pytest.mark.parametrize("case", WEIGHT_ONLY)
def test_weight_only_linear(case: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    x = tokens(*shape)
    graph, _ = graph_of(lambda: One(nn.Linear(64, 48)), {"x": x})

    result = lowered(graph, tmp_path, weighted(WEIGHT_ONLY[case], None))

    assert result.kernels() == {"op": ("MatMulNBits", "float32")}
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > EXACT_DB


@pytest.mark.parametrize(
    ("make", "x"),
    [(lambda: nn.Conv2d(32, 24, 3), image()), (lambda: nn.Linear(64, 48), tokens(2, 10))],
    ids=["conv", "linear"],
)
@pytest.mark.parametrize(
    "weights",
    [Weights(dtype="float8_e4m3fn"), Weights(dtype="float8_e4m3fn", granularity="tensor")],
    ids=["channel", "tensor"],
)
def test_float8_weights_are_decompressed_once(
    make: Any, x: torch.Tensor, weights: Weights, tmp_path: Path
) -> None:
    graph, _ = graph_of(lambda: One(make()), {"x": x})

    result = lowered(graph, tmp_path, weighted(weights, None))

    assert set(result.executed()) & {"DequantizeLinear", "Cast"} == set()
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > EXACT_DB


@pytest.mark.parametrize(
    "weights",
    [
        W8,
        Weights(dtype="int4"),
        Weights(dtype="uint8", symmetric=False),
        Weights(dtype="int8", granularity="tensor"),
    ],
    ids=["int8", "int4", "asymmetric", "tensor"],
)
def test_convolution_weights_are_decompressed_once(weights: Weights, tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: One(nn.Conv2d(32, 24, 3)), {"x": image()})

    result = lowered(graph, tmp_path, weighted(weights, None))

    assert result.kernels() == {"op": ("Conv", "float32")}
    assert set(result.executed()) & {"DequantizeLinear", "Cast"} == set()
    assert sqnr_db(result.reference({"x": image()}), result.run({"x": image()})) > EXACT_DB


@pytest.mark.parametrize("case", ["conv", "1x1 conv", "linear"])
@pytest.mark.parametrize("dtype", ["uint8", "uint4"])
def test_timestep_groups(case: str, dtype: Any, tmp_path: Path) -> None:
    make, x, _ = CASES[case]
    inputs = Inputs(dtype=dtype, symmetric=dtype == "uint4")
    groups = ((range(1), inputs), (range(1, 2), inputs))
    example = {"x": x, "timestep": torch.tensor(700)}
    graph, _ = graph_of(lambda: Timed(make()), example)

    result = lowered(graph, tmp_path, weighted(W8, groups), ranges=FixedRanges(boundaries=(500.0,)))

    assert result.kernels()["op"][1] == "int8"
    answers = []
    for timestep in (700, 300):
        call = {"x": x * 0.4, "timestep": torch.tensor(timestep)}
        answers.append(result.run(call))
        assert sqnr_db(result.reference(call), answers[-1]) > CLOSE_DB
    assert not np.array_equal(*answers)


def test_tokens(tmp_path: Path) -> None:
    inputs = Inputs(dtype="int8", granularity="token", mode="dynamic")
    x = tokens(2, 10)
    graph, module = graph_of(lambda: One(nn.Linear(64, 48)), {"x": x})

    result = lowered(graph, tmp_path, weighted(W8, inputs))

    assert result.kernels() == {"op": ("MatMulIntegerToFloat", "int8")}
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > CLOSE_DB
    assert sqnr_db(module(x), result.run({"x": x})) > 35


def test_tokens_that_several_operations_share(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 48), nn.Linear(64, 48, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.first(x) * self.second(x)
            return result

    inputs = Inputs(dtype="int8", granularity="token", mode="dynamic")
    x = tokens(2, 10)
    graph, _ = graph_of(Shared, {"x": x})

    result = lowered(graph, tmp_path, weighted(W8, inputs))

    assert {precision for _, precision in result.kernels().values()} == {"int8"}
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > CLOSE_DB


class Attention(nn.Module):
    """Attention with two heads, without the layers around it."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads = [x.unflatten(-1, (2, 16)).transpose(1, 2) for x in (q, k, v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return mixed.transpose(1, 2).flatten(2)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.to_out = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.to_out(self.attn(x, x, x))


@pytest.mark.parametrize(
    ("asked", "kernels"),
    [
        ((), {"qk": "MultiHeadAttention", "pv": "MultiHeadAttention"}),
        (("qk",), {"qk": "MatMulIntegerToFloat", "pv": "MatMul"}),
        (("qk", "pv"), {"qk": "MatMulIntegerToFloat", "pv": "MatMulIntegerToFloat"}),
    ],
    ids=["float", "scores", "both"],
)
def test_products_of_attention(
    asked: tuple[str, ...], kernels: dict[str, str], tmp_path: Path
) -> None:
    x = tokens(2, 12, size=32)
    graph, _ = graph_of(Mixer, {"x": x})

    result = lowered(graph, tmp_path, lambda site: (None, A8 if site.op in asked else None))

    found = result.kernels()
    assert {op: found[f"attn.{op}"][0] for op in kernels} == kernels
    assert found["to_out"][1] == "float32"
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > OUTPUT_CLOSE_DB


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.out = nn.Linear(32, 64), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return self.out(value * nn.functional.gelu(gate))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_gates_are_not_split(granularity: Any, dynamic: bool, tmp_path: Path) -> None:
    auto = torch.export.Dim.AUTO
    x = tokens(3, 7, size=32)
    graph, _ = graph_of(Gated, {"x": x}, dynamic={"x": {0: auto, 1: auto}} if dynamic else None)

    weights = W8.model_copy(update={"granularity": granularity})
    result = lowered(graph, tmp_path, weighted(weights, A8))

    executed = result.executed()
    assert executed.count("QGemm") == 3
    assert "Split" not in executed
    assert result.kernels() == {"proj": ("QGemm", "int8"), "out": ("QGemm", "int8")}
    assert sqnr_db(result.reference({"x": x}), result.run({"x": x})) > CLOSE_DB


class Twice(nn.Module):
    """One module called twice, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(self.norm(x)))) * 1.5


def test_calls_of_one_module_are_told_apart(tmp_path: Path) -> None:
    graph, _ = graph_of(Twice, {"x": image()})

    result = lowered(
        graph, tmp_path, lambda site: (W8, A8) if site.key == "layer#2" else (None, None)
    )

    assert result.kernels() == {
        "norm": ("InstanceNormalization", "float32"),
        "layer": ("Conv", "float32"),
        "layer#2": ("QGemm", "int8"),
    }


def test_time_shares_add_up(tmp_path: Path) -> None:
    graph, _ = graph_of(Twice, {"x": image()})
    result = lowered(graph, tmp_path, weighted(W8, A8))

    shares = [each.time_share for each in audit(tmp_path / "model.onnx", {}, threads=1)]

    assert result.placement.sites
    assert sum(share for share in shares if share is not None) == pytest.approx(1)


def test_a_model_that_does_not_run_is_an_invalid_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")

    with pytest.raises(InvalidBundle, match="ONNX Runtime cannot open it"):
        audit(tmp_path / "model.onnx", {})
