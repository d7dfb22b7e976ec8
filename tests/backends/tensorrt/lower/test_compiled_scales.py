"""What TensorRT-RTX's builder makes of the scales of 8-bit linear layers, as its log lists it. No device is needed."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from tests.support.tensorrt_linear import FLOAT8S, INT8S, TOKENS, Projections, by_channel, lowered

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
PRODUCTS = {f"{name}/MatMul" for name in ("to_q", "to_k", "to_v", "to_out")}
NARROW = {"Int8", "FP8"}


def layers_of(model, capability):
    """The compiled layers of a model: kind, types of inputs (constants too) and outputs, and the names of the file's nodes in it."""
    lines = []

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, message):
            del severity
            lines.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(model)), parser.get_error(0).desc()
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    assert builder.build_serialized_network(network, config) is not None
    (section,) = re.findall(
        r"^Layers:$(.*?)^(?:I/O Tensors|Bindings):", "\n".join(lines), re.DOTALL | re.MULTILINE
    )
    found = []
    for line in section.splitlines():
        kind = re.search(r"LayerType: (\w+)", line)
        if kind is not None:
            given, made = line.partition("Outputs: [")[::2]
            inputs = re.findall(r"Datatype: (\w+)", given.partition("Inputs: [")[2])
            outputs = re.findall(r"Datatype: (\w+)", made.partition("TacticName")[0])
            nodes = set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", line))
            found.append((kind[1], set(inputs), set(outputs), nodes))
    return found


def products(layers):
    """The layers that multiply in 8 bits."""
    return [each for each in layers if each[0] == "gemm" and each[1] & NARROW]


def behind(layers):
    """Names of weights' dequantizers that stand in generated kernels, where scales multiply results."""
    names = {name for kind, _, _, nodes in layers if kind == "kgen" for name in nodes}
    return {name for name in names if name.endswith("/DequantizeLinear")}


CASES = [("SM75", INT8S), ("SM120", INT8S), ("SM89", FLOAT8S), ("SM75", TOKENS), ("SM89", TOKENS)]


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1][1].dtype}-{case[1][1].mode}"
)
def built(request, tmp_path_factory):
    """The layers of the file, and those of the same file with a scale for each channel of the weights."""
    capability, schemes = request.param
    folder = tmp_path_factory.mktemp("lowered")
    artifact, _ = lowered(Projections, folder, torch.randn(1, 64, 160), schemes)
    shared = layers_of(folder / "model.onnx", capability)
    by_channel(artifact)
    return shared, layers_of(folder / "model.onnx", capability)


def test_no_scale_of_a_weight_is_left_to_the_kernel_behind_its_product(built):
    shared, channels = built

    assert {"Half"} == {kind for each in products(shared) for kind in each[2]}
    assert behind(shared) == set()
    assert (
        len(behind(channels)) == 4
    )  # the planted fault: each of them multiplies what passed through float16


def test_the_kernels_are_as_many_as_with_scales_of_channels(built):
    shared, channels = built

    assert Counter(each[0] for each in shared) == Counter(each[0] for each in channels)


def test_every_product_is_in_8_bits_and_query_key_and_value_are_one(built):
    shared, _ = built

    assert {name for each in products(shared) for name in each[3]} >= PRODUCTS
    assert len(products(shared)) == 2
