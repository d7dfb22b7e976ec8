"""Which way each product of a model was compiled: with logs made by hand, and with logs of NVIDIA's own builder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdx.backends.tensorrt.engine.compiled import compiled_model
from qdx.backends.tensorrt.engine.layer_log import parse_layer_log
from qdx.exporter.errors import InvalidBundle
from tests.support import rtx_planted as planted
from tests.support.layer_lines import line, section
from tests.support.rtx_builds import build_planted

OLD, NEW, STORED, CONV, STORED_CONV, FLOAT = planted.PRODUCTS
NATIVE = {"inputs": ["Int8"], "constants": ["Int8", "Float"]}
LINES = {
    OLD: line("gemm", [OLD, "aw/DequantizeLinear"], **NATIVE),
    NEW: line("gemm", [NEW, "bw/DequantizeLinear"], **NATIVE),
    STORED: line(
        "runtime_fusion",
        [STORED, "cw/DequantizeLinear"],
        inputs=["Half"],
        constants=["Half", "Int8"],
    ),
    CONV: line("correlation", [CONV, "iw/DequantizeLinear"], **NATIVE, outputs=["Float"]),
    STORED_CONV: "\n".join(
        [
            line("kgen", ["jw/DequantizeLinear"], constants=["Half", "Int8"]),
            line("correlation", [STORED_CONV], inputs=["Half", "Half"], constants=["Float"]),
        ]
    ),
    FLOAT: line("gemm", [FLOAT], inputs=["Half"], constants=["Half", "Float"]),
}
"""A right log of the planted model."""


def found(*, model=None, more=(), **changed):
    lines = {**LINES, **{planted.PRODUCTS[int(key[1:])]: text for key, text in changed.items()}}
    text = section(*filter(None, lines.values()), *more)
    return compiled_model(model or planted.planted(), parse_layer_log(text), source="log")


def way(node, compiled):
    (one,) = [each for each in compiled.products if each.node == node]
    return one.way


def test_each_product_has_its_way():
    ways = {one.node: (one.way, one.precision) for one in found().products}

    assert ways == {
        OLD: ("native", "int8"),
        NEW: ("native", "int8"),
        STORED: ("weights_in_product", "float16"),
        CONV: ("native", "int8"),
        STORED_CONV: ("weights_in_memory", "float16"),
        FLOAT: ("float", "float16"),
    }
    assert [one.quantized for one in found().products] == [True] * 5 + [False]


def test_a_convolution_whose_weight_is_dequantized_first_is_not_native_though_the_file_asks_for_it():
    halves = line("correlation", [CONV], inputs=["Half", "Half"], constants=["Float"])
    dequantized = line("kgen", ["iw/DequantizeLinear"], constants=["Half", "Int8"])

    assert way(CONV, found(_3=f"{dequantized}\n{halves}")) == "weights_in_memory"
    assert way(CONV, found(_3=halves)) == "float"  # its weight was stored in float


@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_that_a_layer_without_a_name_dequantizes_is_followed_back_to_it(turned):
    dequantized = line("kgen", constants=["Float", "Int8"], outputs=["made:Half"])
    moved = line("kgen", inputs=["made:Half"], outputs=["moved:Half"])
    product = line("gemm", [STORED], inputs=["Half", f"{'moved' if turned else 'made'}:Half"])
    lines = [dequantized, *([moved] if turned else []), product]

    assert way(STORED, found(_2="\n".join(lines))) == "weights_in_memory"
    assert way(STORED, found(_2="\n".join(lines[1:]))) == "float"


def test_code_around_a_product_is_not_what_multiplies():
    scaled = line("kgen", [STORED], inputs=["Half"], constants=["Half"])

    assert way(STORED, found(more=[scaled])) == "weights_in_product"


def test_a_product_of_one_row_is_generated_code():
    row = line("kgen", [STORED, "cw/DequantizeLinear"], inputs=["Half"], constants=["Int8"])

    assert way(STORED, found(_2=row)) == "weights_in_product"


def test_of_the_programs_of_several_profiles_the_worst_way_counts():
    other = line("gemm", [OLD], inputs=["Half", "Half"], program=1)
    dequantized = line("kgen", ["aw/DequantizeLinear"], constants=["Int8"], program=1)

    assert way(OLD, found(more=[dequantized, other])) == "weights_in_memory"


def test_a_raw_sum_in_float16_that_is_scaled_later_is_found():
    scale = line("kgen", [OLD, "aw/DequantizeLinear"], inputs=["Half"], constants=["Half"])

    assert found(more=[scale]).overflowing == ("old",)
    assert found().overflowing == ()


def test_it_is_found_where_the_layer_that_scales_is_not_named():
    one_number = LINES[OLD].replace("[64,64]", "[1]")

    assert found(_0=one_number).overflowing == ("old",)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"_0": LINES[OLD].replace("Half", "Float")}, id="the sum is float32"),
        pytest.param({"_0": LINES[OLD].replace("Half", "BFloat16")}, id="the sum is bfloat16"),
        pytest.param({"_0": LINES[OLD].replace("Int8", "FP4E2M1")}, id="scaled in its product"),
    ],
)
def test_sums_that_hold_are_no_finding(changed):
    scale = line("kgen", [OLD, "aw/DequantizeLinear"], inputs=["Half"], constants=["Half"])

    assert found(more=[scale], **changed).overflowing == ()


def test_one_scale_for_all_of_a_weight_is_applied_in_the_product():
    """A result that is cut to its size names the weight's dequantizer too, and multiplies by nothing."""
    cut = line("kgen", [NEW, "bw/DequantizeLinear"], inputs=["Half"], constants=["Half"])

    assert found(more=[cut]).overflowing == ()


def test_a_kind_of_layer_that_is_not_known_is_an_error():
    with pytest.raises(InvalidBundle, match="unknown kinds: `new_kind`"):
        found(more=[line("new_kind")])


def test_a_product_that_no_layer_names_is_an_error():
    with pytest.raises(InvalidBundle, match=r"does not account for 2 operations .*`float/MatMul`"):
        found(_0="", _5="")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            line("runtime_fusion", [OLD], inputs=["Int8"], constants=["Int8"]), id="within a fusion"
        ),
        pytest.param(line("kgen", [OLD], inputs=["Int8"], constants=["Int8"]), id="generated"),
        pytest.param(
            line("gemm", [OLD], inputs=["Int8"], constants=["Half"]), id="one factor alone"
        ),
    ],
)
def test_a_product_whose_operands_have_no_known_meaning_is_an_error(text):
    with pytest.raises(InvalidBundle, match=r"`old/MatMul`: .* reads int8"):
        found(_0=text)


def test_layers_name_the_sites_that_they_multiply_for_and_no_others():
    scale = line("kgen", [OLD, "aw/DequantizeLinear"], inputs=["Half"], constants=["Half"])
    executions = found(more=[scale]).executions()

    assert [one.sites for one in executions] == [
        ("old",),
        ("new",),
        ("stored",),
        ("conv",),
        (),
        ("stored_conv",),
        ("float",),
        (),
    ]
    assert executions[0].compiled == "native"
    assert executions[-1].compiled is None


def attention(*lines):
    return compiled_model(planted.attention(64), parse_layer_log(section(*lines)), source="log")


NODES = ["attn/MatMul", "attn/Softmax", "attn/MatMul_1"]


def test_one_kernel_of_an_attention_is_fused_and_native_where_all_that_it_reads_is_narrow():
    tactic = "_gemm_mha_v2_0x12"
    fused = attention(line("kgen", NODES, inputs=["Int8"] * 3, tactic=tactic))
    mixed = attention(line("kgen", NODES, inputs=["Half", "Half", "Int8"], tactic=tactic))

    assert [(one.name, one.fused) for one in fused.attentions] == [("attn", True)]
    assert [one.way for one in fused.products] == ["native", "native"]
    assert [one.way for one in mixed.products] == ["float", "float"]


def test_a_softmax_outside_of_such_a_kernel_is_an_attention_in_parts():
    parts = attention(
        line("gemm", NODES[:1], inputs=["Int8", "Int8"]),
        line("kgen", NODES[1:2], inputs=["Half"], tactic="__myl_MaxrSubExpSumDivMul_0x12"),
        line("gemm", NODES[2:], inputs=["Int8", "Int8"]),
    )

    (one,) = parts.attentions
    assert (one.fused, one.kernel) == (False, "kgen MaxrSubExpSumDivMul")
    assert [each.way for each in parts.products] == ["native", "native"]


def test_a_softmax_that_no_layer_names_is_an_error():
    with pytest.raises(InvalidBundle, match="`attn/Softmax` is in no layer"):
        attention(line("gemm", [NODES[0], NODES[2]], inputs=["Int8", "Int8"]))


@pytest.fixture(scope="module", params=["7.5", "8.9", "12.0"])
def built(request, tmp_path_factory):
    """The planted model as NVIDIA's builder compiles it."""
    folder = tmp_path_factory.mktemp("planted")
    return request.param, build_planted(planted.planted(), request.param, folder)


def test_the_builder_compiles_each_form_as_it_is_told(built):
    capability, compiled = built

    assert way(OLD, compiled) == way(NEW, compiled) == "native"
    assert way(STORED, compiled) == "weights_in_product"
    assert way(STORED_CONV, compiled) == "weights_in_memory"
    assert way(CONV, compiled) == ("weights_in_memory" if capability == "7.5" else "native")
    assert way(FLOAT, compiled) == "float"


def test_the_old_form_of_a_product_is_found_in_the_log_of_the_builder_and_the_new_one_is_not(built):
    assert built[1].overflowing == ("old",)


def test_an_attention_in_parts_is_told_from_the_log_of_the_builder(tmp_path):
    compiled = build_planted(planted.attention(600), "8.9", tmp_path)

    assert [one.fused for one in compiled.attentions] == [False]
    assert [one.way for one in compiled.products] == ["native", "native"]


def test_a_log_of_another_model_is_an_error(built):
    log = built[1].log

    with pytest.raises(InvalidBundle, match="does not account for 3 operations"):
        compiled_model(planted.attention(64), log, source="log")
    left = tuple(one for one in log.layers if OLD not in one.nodes)
    with pytest.raises(InvalidBundle, match="`old/MatMul` is in no layer"):
        compiled_model(planted.planted(), replace(log, layers=left), source="log")
