"""Configurations of ModelOpt become rules that quantize what ModelOpt quantizes."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidInput
from tests.exporter.plan.importers.conftest import decided, imported, made, verdicts

FORMATS = {
    ("int8", "channel"): [8, 0],
    ("int8", "tensor"): [8, None],
    ("int4", "channel"): [4, 0],
    ("float8_e4m3fn", "tensor"): [[4, 3], None],
}
INPUTS = {"int8": [8, None], "float8_e4m3fn": [[4, 3], None]}


def quantizers(one, sites):
    """The quantizers that a plan asks for, by ModelOpt's names and in its attributes."""
    found = {}
    for key, (weights, inputs) in decided(one, sites).items():
        if weights is not None:
            found[f"{key}.weight_quantizer"] = FORMATS[weights.dtype, weights.granularity]
        if inputs is None:
            continue
        stem, _, product = key.rpartition(".")
        if product == "qk":
            found[f"{stem}.q_bmm_quantizer"] = found[f"{stem}.k_bmm_quantizer"] = INPUTS[
                inputs.dtype
            ]
        else:
            found[f"{key}.input_quantizer"] = INPUTS[inputs.dtype]
    return found


@pytest.mark.parametrize("name", ["int8_default", "fp8_default", "mixed"])
def test_the_same_quantizers_are_on_as_in_modelopt(unet, name):
    one = imported(made(f"modelopt-{name}.json"), sites=unet)
    wanted = made("modelopt-enabled.json")[name]
    norms = {f"{site.fqn}.input_quantizer" for site in unet if "norm" in site.op} & set(wanted)

    assert len(wanted) > 60
    assert quantizers(one, unet) == {key: one for key, one in wanted.items() if key not in norms}
    said = any("norms" in finding.words for finding in one.findings)
    assert said == bool(norms), "inputs that stay float are told"
    assert not one.refused


def test_the_older_form_says_the_same(unet):
    newer = made("modelopt-mixed.json")
    older = {
        "quant_cfg": {
            "*weight_quantizer": {"num_bits": 8, "axis": 0},
            "*.to_[kv].weight_quantizer": {"num_bits": 4, "axis": 0},
            "*attn?.*input_quantizer": {"num_bits": 8, "axis": None},
            "*[qk]_bmm_quantizer": {"num_bits": 8, "axis": None},
            "*conv_*": {"enable": False},
            "nn.Conv2d": {"*": {"enable": False}},
            "*time_emb*": {"enable": False},
            "*.attn1.to_q.input_quantizer": {"enable": False},
            "default": {"enable": False},
        },
        "algorithm": "max",
    }

    assert quantizers(imported(older), unet) == quantizers(imported(newer), unet)


@pytest.mark.parametrize(
    ("name", "weights", "inputs"),
    [
        ("nvfp4_default", ("nvfp4", 16), "nvfp4"),
        ("mxfp8_default", ("mxfp8", 32), "mxfp8"),
        ("int4_blockwise_weight_only", ("int4", 128), None),
    ],
)
def test_blocks(unet, name, weights, inputs):
    one = imported(made(f"modelopt-{name}.json"))
    found = decided(one, unet)["time_embedding.linear_1"]

    assert (found[0].dtype, found[0].block) == weights
    assert (None if found[1] is None else found[1].dtype) == inputs
    assert not one.refused


def test_smoothing_is_near_and_a_search_of_scales_refused():
    smooth = imported(made("modelopt-int8_smoothquant.json"))
    awq = imported(made("modelopt-int4_awq.json"))

    assert smooth.plan.options.smoothing.alpha == 1.0
    assert verdicts(smooth)["algorithm"] == "approximate"
    assert [one.place for one in awq.refused] == ["algorithm"]
    assert "awq_lite" in awq.refused[0].words


def cfg(pattern, **attributes):
    return {"quant_cfg": [{"quantizer_name": "*", "enable": False}, {"quantizer_name": pattern, "cfg": attributes}]}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (cfg("*weight_quantizer", num_bits=7), "no integers of 7 bits"),
        (cfg("*weight_quantizer", num_bits=[5, 2]), "E5M2"),
        (cfg("*weight_quantizer", num_bits=8, axis=1), "axis 1"),
        (cfg("*weight_quantizer", num_bits=4, block_sizes={"-1": 48}), "no blocks of 48"),
        (cfg("*weight_quantizer", num_bits=8, rotate=True), "rotation"),
        (cfg("*input_quantizer", num_bits=8, type="dynamic"), "dynamic inputs"),
        (cfg("*.to_q.output_quantizer", num_bits=8), "not its result"),
        (cfg("*q_bmm_quantizer", num_bits=8), "differ"),
        (cfg("*[!k]_bmm_quantizer", num_bits=8), "must not be there"),
        (cfg("*weight_quantizer", num_bits=8, axis=0, novel=3), "`novel` is not read here"),
    ],
)
def test_what_rules_do_not_say_is_refused_with_the_reason(data, words):
    one = imported(data)

    assert any(words in refused.words for refused in one.refused), one.findings


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"quant_cfg": 3}, "`quant_cfg` is `3`, expected a list"),
        ({"quant_cfg": [{"quantizer_name": "*"}]}, "`cfg`, `enable` or both"),
        ({"quant_cfg": [{"quantizer_name": 3, "enable": False}]}, "expected text"),
        (cfg("*weight_quantizer", num_bits="e9m9"), "expected `e4m3`"),
        (cfg("*weight_quantizer", num_bits=[4]), "bits of the exponent"),
    ],
)
def test_another_shape_is_an_error(data, words):
    with pytest.raises(InvalidInput, match=r"f\.json") as caught:
        imported(data)
    assert words in caught.value.message


def test_nobody_switches_off_what_modelopt_has_on(unet):
    one = imported({"quant_cfg": [{"quantizer_name": "*output_quantizer", "enable": False}]})

    assert decided(one, unet)["conv_in"][0].dtype == "int8"
    assert any("defaults" in finding.words for finding in one.findings)
