from __future__ import annotations

import json

import pytest

from qdx.backends.contract import KernelExecution
from qdx.backends.tensorrt.engine.audit import sites_by_node
from qdx.backends.tensorrt.engine.inspect import executions, parse_layers
from qdx.exporter.errors import InvalidBundle


def of_10(kind, *, metadata="", name="layer"):
    """A layer as TensorRT 10 tells it."""
    return {
        "Name": name,
        "LayerType": "gemm",
        "Inputs": [{"Name": "x", "Location": "Device", "Format/Datatype": kind}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Half"}],
        "TacticName": "sm89_xmma_gemm",
        "Metadata": metadata,
    }


def of_11(kind, *, metadata="", name="layer"):
    """The same as TensorRT 11 tells it."""
    return {
        **of_10("", metadata=metadata, name=name),
        "Inputs": [{"Name": "x", "DataType": kind, "Format": "Row major linear FP32 format"}],
        "Outputs": [{"Name": "y", "DataType": "Half"}],
    }


def text(*layers, **more):
    return json.dumps({"Layers": list(layers), **more})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Float", "float32"),
        ("Half", "float16"),
        ("BFloat16", "bfloat16"),
        ("Int8", "int8"),
        ("FP8", "float8_e4m3fn"),
        ("Row major linear FP16 format", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_types_of_10(kind, expected):
    (layer,) = parse_layers(text(of_10(kind), Bindings=["x", "y"]))

    assert (layer.inputs, layer.precision) == ((expected,), expected)


def test_types_of_11_have_a_field_of_their_own():
    (layer,) = parse_layers(text(of_11("Int8"), **{"I/O Tensors": [{"Name": "x"}]}))

    assert (layer.inputs, layer.outputs, layer.precision) == (("int8",), ("float16",), "int8")


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", ""])
def test_fused_layers_name_their_nodes(separator):
    metadata = separator.join(f"[ONNX Layer: {name}]" for name in ("to_q/MatMul", "to_q/Add"))

    (layer,) = parse_layers(text(of_10("Half", metadata=metadata)))

    assert layer.nodes == ("to_q/MatMul", "to_q/Add")


def test_a_skip_connection_in_half_does_not_hide_the_integers():
    layer = of_10("Int8")
    layer["Inputs"].append({"Name": "skip", "Format/Datatype": "Half"})

    assert parse_layers(text(layer))[0].precision == "int8"


def test_layers_become_executions_by_site():
    layers = parse_layers(
        text(
            of_10("Int8", metadata="[ONNX Layer: to_q/MatMul][ONNX Layer: to_q/Add]", name="a"),
            of_10("Half", name="b"),
        )
    )
    sites = {"to_q/MatMul": ("unet:to_q",)}

    found = executions(layers, lambda node: sites.get(node, ()), {"a": 3.0, "b": 1.0})

    assert found == (
        KernelExecution("a", "gemm", "int8", ("unet:to_q",), 0.75),
        KernelExecution("b", "gemm", "float16", (), 0.25),
    )


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("no json", "is no JSON"),
        ("[]", "has no `Layers`"),
        ('{"Layers": ["conv1", "conv2"]}', "tells the names of its layers alone"),
    ],
)
def test_other_descriptions_are_refused(description, message):
    with pytest.raises(InvalidBundle, match=message):
        parse_layers(description)


def test_products_alone_compute_sites(onnx_folder):
    found = sites_by_node(onnx_folder / "model.onnx")

    assert {"to_q", "to_k", "to_v", "to_out", "proj", "ff", "conv_in"} <= {
        site for sites in found.values() for site in sites
    }
    assert all(name.rsplit("/")[-1].startswith(("MatMul", "Gemm", "Conv")) for name in found)
