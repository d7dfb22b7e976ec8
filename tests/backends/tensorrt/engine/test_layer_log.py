from __future__ import annotations

import pytest

from qdx.backends.tensorrt.engine.layer_log import parse_layer_log
from qdx.exporter.errors import InvalidBundle
from tests.support.layer_lines import MEMORY, line, section, tensor

GEMM = line(
    "gemm", ["a/MatMul", "b/MatMul"], inputs=["Int8"], constants=["Int8", "Float"], number=3
)


def test_a_line_has_kinds_types_and_the_nodes_that_it_computes():
    (layer,) = parse_layer_log(section(GEMM)).layers

    assert (layer.name, layer.kind) == ("a/MatMul+b/MatMul_myl0_3", "gemm")
    assert layer.nodes == ("a/MatMul", "b/MatMul")
    assert [one.dtype for one in layer.inputs] == ["int8"]
    assert [one.dtype for one in layer.constants] == ["int8", "float32"]
    assert [one.dtype for one in layer.outputs] == ["float16"]
    assert layer.inputs[0].dimensions == "[64,64]"
    assert layer.line == 5


def test_memory_is_told_beside_the_layers():
    log = parse_layer_log(section(GEMM))

    assert (log.weights_bytes, log.activation_bytes, log.scratch_bytes) == (1000, 2000, 300)


def test_of_several_profiles_the_largest_memory_counts_and_the_layers_of_each():
    more = "Total Activation Memory: 9000 bytes\n"
    log = parse_layer_log(
        more + section(GEMM, line("gemm", ["a/MatMul"], inputs=["Int8"], program=1, number=7))
    )

    assert log.activation_bytes == 9000
    assert [one.name for one in log.layers] == ["a/MatMul+b/MatMul_myl0_3", "a/MatMul_myl1_7"]


def test_a_tensor_of_a_second_profile_and_open_sizes_are_read():
    text = GEMM.replace("Name: t,", "Name: t [profile 1],").replace("[64,64]", "[-1,64]")

    (layer,) = parse_layer_log(section(text)).layers
    assert (layer.inputs[0].name, layer.inputs[0].dimensions) == ("t [profile 1]", "[-1,64]")


def test_layers_that_keep_streams_in_step_have_an_event():
    found = parse_layer_log(section(line("signal", outputs=[]), line("wait", outputs=[]))).layers

    assert [one.kind for one in found] == ["signal", "wait"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("FP8", "float8_e4m3fn"),
        ("FP4E2M1", "float4_e2m1fn"),
        ("Int4", "int4"),
        ("FP8UE8M0", "float8_e8m0fnu"),
        ("BFloat16", "bfloat16"),
    ],
)
def test_types_have_the_names_of_torch(word, expected):
    (layer,) = parse_layer_log(section(line("kgen", inputs=[word]))).layers

    assert layer.inputs[0].dtype == expected


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (section(), "log.txt", "names no layer"),
        (f"Layers:\n{GEMM}", "log.txt", "`Total Weights Memory`, .* missing"),
        (f"{MEMORY}{GEMM}", "log.txt:4", "expected `Layers:` first"),
        (section(GEMM, "and more"), "log.txt:6", "expected a field of its own name"),
        (section(GEMM[:-3]), "log.txt:5", "ends within brackets"),
        (section(GEMM.replace("}]", "]", 1)), "log.txt:5", "closes nothing"),
        (section(GEMM.replace("LayerType", "Kind")), "log.txt:5", "expected Name, LayerType"),
        (section(GEMM.replace(", StreamId: 0", "")), "log.txt:5", "expected Name, LayerType"),
        (section(GEMM + ", More: 1"), "log.txt:5", "with the fields .* More"),
        (section(f"{GEMM}, Name: again"), "log.txt:5", "expected a field of its own name"),
        (section(GEMM.replace("ONNX Layer: b", "Layer: b")), "log.txt:5", "names of ONNX layers"),
        (section(GEMM.replace("Int8", "Int7", 1)), "log.txt:5: Inputs", "`Int7`: unknown"),
        (section(GEMM.replace("Datatype", "Type", 1)), "log.txt:5: Inputs", "a tensor with"),
        (
            section(GEMM.replace(f"[ {tensor('Int8')}]", "Int8", 1)),
            "log.txt:5: Inputs",
            "expected it in",
        ),
    ],
)
def test_a_line_of_another_form_is_refused_with_its_place(text, where, message):
    with pytest.raises(InvalidBundle, match=message) as refused:
        parse_layer_log(text, source="log.txt")
    assert f"`{where}`" in str(refused.value)


def test_what_follows_the_layers_is_no_layer():
    tail = "\nI/O Tensors:\n Name: x, IOMode: Input\n\nEngine Metadata:\n Multi-Device: Disabled\n"

    assert len(parse_layer_log(section(GEMM) + tail).layers) == 1
    with pytest.raises(InvalidBundle, match="a second `Layers:`"):
        parse_layer_log(section(GEMM) + tail + f"Layers:\n{GEMM}\n")


def test_other_amounts_of_memory_are_passed_over():
    log = parse_layer_log("Total Host Persistent Memory: 80 bytes\n" + section(GEMM))

    assert (log.weights_bytes, log.activation_bytes, log.scratch_bytes) == (1000, 2000, 300)


def test_a_log_of_less_detail_does_not_read():
    with pytest.raises(InvalidBundle, match="names no layer"):
        parse_layer_log(MEMORY)
