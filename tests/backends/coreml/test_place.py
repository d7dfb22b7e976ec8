"""Where quantizers stand for Core ML, and what the placed graph computes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from qdx.exporter.errors import TargetRefusal
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement
from tests.support.coreml_placed import HALF, W8, placed
from tests.support.onnxruntime_quantized import FixedRanges
from tests.support.tracing import block_inputs, sqnr_db

OPS = {"op": ["conv2d", "linear"]}
SYMMETRIC = {"dtype": "int8", "symmetric": True}
ASYMMETRIC = {"dtype": "int8", "symmetric": False}


def by_key(placement: Placement) -> dict[str, Any]:
    return {site.key: site for site in placement.sites}


def test_weights_alone_need_no_ranges(block: tuple[Graph, nn.Module]) -> None:
    graph, _ = block
    _, placement = placed(graph, HALF, {"select": OPS, "weights": W8})
    weighted = {site.key for site in sites(graph) if site.op in OPS["op"]}

    assert set(by_key(placement)) == weighted
    assert {site.weight for site in placement.sites} == {WeightQuantization("int8")}
    assert not any(site.inputs or site.output for site in placement.sites)


@pytest.mark.parametrize(
    ("inputs", "dtype", "zero_point"), [(SYMMETRIC, "int8", 0), (ASYMMETRIC, "uint8", 119)]
)
def test_inputs_are_signed_around_zero_or_unsigned(
    block: tuple[Graph, nn.Module], inputs: dict[str, Any], dtype: str, zero_point: int
) -> None:
    rule = {"select": OPS, "weights": W8, "inputs": inputs}
    _, placement = placed(block[0], rule, ranges=FixedRanges())
    found = {each for site in placement.sites for each in site.inputs.values()}

    assert {(each.dtype, each.zero_point, each.token) for each in found} == {
        (dtype, zero_point, False)
    }
    assert not any(site.output for site in placement.sites)


def test_probabilities_take_all_levels(block: tuple[Graph, nn.Module]) -> None:
    rule = {"select": {"op": ["qk", "pv"]}, "inputs": SYMMETRIC, "when": "always"}
    opened, placement = placed(block[0], rule, ranges=FixedRanges())
    products = {site.key: site for site in sites(opened) if site.op == "pv"}

    for key, site in products.items():
        found = by_key(placement)[key].inputs
        probabilities, values = found[site.ports["probs"]], found[site.ports["value"]]
        assert (probabilities.dtype, probabilities.zero_point) == ("uint8", 0)
        assert (values.dtype, values.zero_point) == ("int8", 0)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({"dtype": "palette6", "granularity": "tensor"}, {"lut_dtype": "float16"}),
        ({"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int8"}, {"lut_dtype": "int8"}),
        (
            {"dtype": "palette3", "granularity": "grouped_channel", "group": 2},
            {"lut_dtype": "float16", "group": 2, "granularity": "grouped_channel"},
        ),
    ],
)  # fmt: skip
def test_palettes_keep_their_types_and_groups(
    block: tuple[Graph, nn.Module], scheme: dict[str, Any], expected: dict[str, Any]
) -> None:
    _, placement = placed(block[0], HALF, {"select": {"op": "conv2d"}, "weights": scheme})
    wanted = WeightQuantization(**{"dtype": scheme["dtype"], "granularity": "tensor", **expected})

    assert {site.weight for site in placement.sites} == {wanted}


def test_blocks_go_along_the_inputs(block: tuple[Graph, nn.Module]) -> None:
    scheme = {"dtype": "int4", "granularity": "block", "block": 16}
    _, placement = placed(block[0], {"select": {"op": "linear"}, "weights": scheme})
    blocked = {s.weight for s in placement.sites if s.weight and s.weight.granularity == "block"}

    assert {(weight.axis, weight.block) for weight in blocked} == {(1, 16)}


PLANS: dict[str, tuple[dict[str, Any], float]] = {
    "w8": ({"weights": W8}, 30),
    "palette8": ({"weights": {"dtype": "palette8", "granularity": "tensor"}}, 30),
    "palette6": ({"weights": {"dtype": "palette6", "granularity": "tensor"}}, 20),
    "palette4": ({"weights": {"dtype": "palette4", "granularity": "grouped_channel", "group": 4}}, 8),
    "w8a8": ({"weights": W8, "inputs": ASYMMETRIC}, 15),
    "palette4 of int8 and 8-bit inputs": (
        {"weights": {"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int8"}, "inputs": SYMMETRIC},
        8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_what_is_placed_computes_nearly_the_same(block: tuple[Graph, nn.Module], name: str) -> None:
    graph, _ = block
    parts, least_db = PLANS[name]
    rules = [{"select": OPS, **parts}]
    if "inputs" in parts:  # a timestep does not fit the range that all inputs are said to have
        rules.append({"select": {"name": "time"}, "inputs": {"dtype": "float32"}})
    opened, placement = placed(graph, HALF, *rules, ranges=FixedRanges(-6, 6))
    inputs = block_inputs()
    found = run(insert(opened, sites(opened), placement), inputs)["y"]

    assert sqnr_db(run(graph, inputs)["y"], found.numpy()) > least_db


def test_what_the_target_refuses_names_the_reason(block: tuple[Graph, nn.Module]) -> None:
    token = {"dtype": "int8", "granularity": "token", "mode": "dynamic"}
    with pytest.raises(TargetRefusal, match="none is computed from a token at run time"):
        placed(block[0], {"select": OPS, "weights": W8, "inputs": token})
