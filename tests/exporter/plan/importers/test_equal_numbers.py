"""What a finding calls exact has the numbers of the tool: a weight that it quantized, and the same by the plan."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from tests.exporter.plan.importers.conftest import MADE, imported, made
from tests.support.tracing import sqnr_db

EXACT = {
    "torchao": {"int4-zero", "float8"},
    "quanto": {"qint8", "qfloat8"},
    "modelopt": {"int8_default", "fp8_default", "int4_blockwise_weight_only"},
    "bitsandbytes": {"int8"},
}
NEAR = {
    "torchao": {"int8", "int8-tensor", "int4-group", "int4-axis", "int3-group"},
    "quanto": {"qint4"},
    "bitsandbytes": set(),
}
WEIGHT = torch.randn(8, 128, generator=torch.Generator().manual_seed(0)) * 0.1


def ours(data, tool):
    """The weight as the plan has it, and whether that is said to be exact."""
    one = imported(data, tool=tool)
    asked = next(rule.weights for rule in one.plan.rules if rule.weights and rule.weights.quantized)
    words = [finding for finding in one.findings if "weights" in finding.words]
    quantization = WeightQuantization.of(asked, 0)
    values = format_of(asked.dtype).values(WEIGHT, quantization, None)
    return values, all(finding.verdict == "exact" for finding in words)


@pytest.mark.parametrize(
    ("tool", "name"), [(tool, name) for tool, names in EXACT.items() for name in sorted(names)]
)
def test_exact_is_exact(tool, name):
    values, exact = ours(made(f"{tool}-plans.json")[name], tool)
    theirs = load_file(MADE / f"{tool}-values.safetensors")[name]

    assert exact
    # Scales are computed in another order of operations, so that a value may be one last place away; none may round to another integer.
    assert torch.allclose(values, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("tool", "name"), [(tool, name) for tool, names in NEAR.items() for name in sorted(names)]
)
def test_near_is_near_and_said_to_be(tool, name):
    values, exact = ours(made(f"{tool}-plans.json")[name], tool)
    theirs = load_file(MADE / f"{tool}-values.safetensors")[name]

    assert not exact
    # Both lose about as much of the weight.
    assert sqnr_db(WEIGHT, values.numpy()) > sqnr_db(WEIGHT, theirs.numpy()) - 1


def test_every_plan_of_the_tools_is_here():
    for tool, names in EXACT.items():
        assert made(f"{tool}-plans.json").keys() == names | NEAR.get(tool, set())
