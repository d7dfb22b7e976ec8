"""Arguments of NNCF become rules; names of nodes lead to modules."""

from __future__ import annotations

import pytest

from qdx.exporter.plan.importers.nncf import module_of_node
from qdx.exporter.plan.importers.patterns import NoGlobError
from tests.exporter.plan.importers.conftest import decided, imported, verdicts

SCOPE = {
    "names": [
        "__module.conv_in/aten::_convolution/Convolution",
        "/down_blocks.0/resnets.0/conv1/Conv",
        "up_blocks/0/resnets/0/conv1/conv2d/0",
    ],
    "patterns": [r".*to_q$", r"__module\.time_embedding\..*"],
    "types": ["Softmax", "ScaledDotProductAttention"],
    "subgraphs": [],
    "validate": True,
}


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("__module.mid_block.attentions.0.proj_in/aten::linear/MatMul", "mid_block.attentions.0.proj_in"),
        ("__module.conv_in/aten::_convolution/Convolution_1", "conv_in"),
        ("/down_blocks.0/resnets.0/conv1/Conv", "down_blocks.0.resnets.0.conv1"),
        ("conv/conv2d/0", "conv"),
        ("down_blocks/0/resnets/0/conv1/conv2d/0", "down_blocks.0.resnets.0.conv1"),
    ],
)  # fmt: skip
def test_a_node_begins_with_its_module(node, module):
    assert module_of_node(node) == module


@pytest.mark.parametrize(
    "node", ["MatMul_123", "/linear/0", "aten::softmax/Softmax", "a b/c/0", ""]
)
def test_a_node_of_no_module_is_refused(node):
    with pytest.raises(NoGlobError):
        module_of_node(node)


def test_what_is_ignored_stays_float(unet):
    one = imported({"preset": "mixed", "ignored_scope": SCOPE}, sites=unet)
    found = decided(one, unet)
    floats = {key for key, parts in found.items() if parts == (None, None)}

    assert found["conv_out"][0].dtype == "int8"
    assert found["conv_out"][1].symmetric is False
    for key in ("conv_in", "down_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.0.conv1", "time_embedding.linear_2"):  # fmt: skip
        assert key in floats
    assert {key for key in found if key.endswith("to_q")} <= floats
    assert verdicts(one)["ignored_scope.names"] == "exact"
    assert not one.refused


def test_a_scope_alone_and_a_node_that_leads_nowhere(unet):
    one = imported({**SCOPE, "names": ["MatMul_7"], "patterns": [], "types": []})

    assert [refused.place for refused in one.refused] == ["names[0]"]
    assert "names no module" in one.refused[0].words


def test_a_pattern_with_numbers_needs_the_names_of_a_model(unet):
    data = {"names": [], "patterns": [r"down_blocks\.\d+\.resnets\.\d+\.conv1"], "types": []}
    with_names = imported(data, sites=unet)

    assert "with --model" in imported(data).refused[0].words
    assert not with_names.refused
    assert decided(with_names, unet)["down_blocks.0.resnets.0.conv1"] == (None, None)
    assert decided(with_names, unet)["down_blocks.0.resnets.0.conv2"][0].dtype == "int8"


@pytest.mark.parametrize(
    ("arguments", "dtype", "block"),
    [
        ({"mode": "int4_sym", "group_size": 64}, "int4", 64),
        ({"mode": "int4_asym"}, "int4", 128),
        ({"mode": "int8_asym", "group_size": -1}, "int8", None),
        ({"mode": "nvfp4", "group_size": 16}, "nvfp4", 16),
    ],
)
def test_compressed_weights(unet, arguments, dtype, block):
    one = imported(arguments, tool="nncf")
    weights, inputs = decided(one, unet)["down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"]

    assert (weights.dtype, weights.block, inputs) == (dtype, block, None)
    assert not one.refused


def test_the_configuration_of_optimum_intel(unet):
    one = imported({"quantization_config": {"bits": 4, "sym": True, "group_size": 128, "ratio": 0.8, "ignored_scope": {"names": []}}, "dtype": "int4"})  # fmt: skip

    assert (one.tool, one.plan.rules[0].weights.dtype) == ("nncf", "int4")
    assert [refused.place for refused in one.refused] == ["quantization_config.ratio"]


@pytest.mark.parametrize("mode", ["nf4", "cb4", "mxfp4", "fp8_e4m3", "codebook"])
def test_types_that_no_rule_stores_are_refused(mode):
    one = imported({"mode": mode, "group_size": 64})

    assert mode in one.refused[0].words
