"""Group norms before quantizers become sums over channels, with the same values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from qdx.backends.openvino.group_norm import norms_by_channel
from qdx.backends.openvino.package import core, openvino
from tests.support.tracing import sqnr_db

CHANNELS, GROUPS = 12, 4
OPEN = -1


def make_model(
    shape: tuple[int, ...] = (2, CHANNELS, 5, 3), *, swish: bool = True, shared: bool = False
) -> Any:
    ov = openvino()
    opset = ov.opset13
    rng = np.random.default_rng(0)
    scale, shift = rng.standard_normal((2, CHANNELS)).astype(np.float32)
    x = opset.parameter(ov.PartialShape(list(shape)), np.float32, name="x")
    norm = opset.group_normalization(x, opset.constant(scale), opset.constant(shift), GROUPS, 1e-5)
    norm.set_friendly_name("norm")
    last = opset.swish(norm) if swish else norm
    ends = [opset.constant(np.float32(end)) for end in (-100, 100)]  # one level is far below 60 dB
    quantized = opset.fake_quantize(last, *ends, *ends, 2**24)
    results = [opset.result(quantized), *([opset.result(norm)] if shared else [])]
    return ov.Model(results, [x], "model")


def run(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(model, "CPU", options)
    return np.array(compiled([x])[0])


def kinds(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ops())


@pytest.mark.parametrize("swish", [True, False], ids=["silu", "alone"])
@pytest.mark.parametrize("samples", [2, OPEN], ids=["static", "open-batch"])
@pytest.mark.parametrize(("mean", "least_db"), [(0, 100), (10, 90), (100, 60)])
def test_values_stay(samples: int, swish: bool, mean: float, least_db: float) -> None:
    model = make_model((samples, CHANNELS, 5, 3), swish=swish)
    x = np.random.default_rng(1).standard_normal((2, CHANNELS, 5, 3)).astype(np.float32) + mean
    before = run(model, x)

    norms_by_channel(model)

    assert kinds(model)["GroupNormalization"] == 0
    assert "norm" in {node.get_friendly_name() for node in model.get_ops()}
    assert sqnr_db(torch.from_numpy(before), run(model, x)) >= least_db


def test_a_group_without_variance_stays_finite() -> None:
    model = make_model()
    norms_by_channel(model)

    assert np.isfinite(run(model, np.full((2, CHANNELS, 5, 3), 1234.5, np.float32))).all()


def test_a_norm_that_more_than_quantizers_take_keeps_the_operator() -> None:
    model = make_model(shared=True)
    norms_by_channel(model)

    assert kinds(model)["GroupNormalization"] == 1


@pytest.mark.parametrize(
    "shape", [(2, CHANNELS, OPEN, 3), (2, OPEN, 5, 3)], ids=["size", "channels"]
)
def test_open_sizes_keep_the_operator(shape: tuple[int, ...]) -> None:
    model = make_model(shape)
    norms_by_channel(model)

    assert kinds(model)["GroupNormalization"] == 1
