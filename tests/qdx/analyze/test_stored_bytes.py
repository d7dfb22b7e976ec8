"""Held against files that exports wrote, read by their own format."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import qdx
from qdx.analyze.stored_bytes import StoredBytes
from qdx.backends.capabilities import StoresWeights
from qdx.backends.registry import get_backend
from qdx.compile.recipe import choose_recipe
from qdx.exporter.cost.weight_file import StoredTensor
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.pipeline import TracedPipeline, trace_pipeline
from qdx.source.planned import PlannedGraphs, plan_graphs
from qdx.targets.profile import load_target
from tests.support.lowering import lower
from tests.support.quantizing import CALL, plan, write_plan
from tests.support.tiny import FAMILIES, build

WHERE = "unet.forward"
QUANTIZER_BYTES = 16
"""Four numbers in float32: no quantizer of an activation has more of its own in OpenVINO's files."""
SHAPE_BYTES = 16
"""Two dimensions of a matrix."""
ENTRY_BYTES = 64
"""Core ML's files have something at every multiple of this."""
FLOAT_BYTES = 4
INT8 = {"dtype": "int8"}
RANK = 3
SCHEMES = {
    "channel": INT8,
    "tensor": {"dtype": "int8", "granularity": "tensor"},
    "unsigned": {"dtype": "uint8", "symmetric": False},
    "blocks": {"dtype": "int4", "granularity": "block", "block": 16},
    "branch": {"dtype": "int4", "granularity": "channel", "low_rank": {"rank": RANK}},
    "branch8": {**INT8, "low_rank": {"rank": RANK}},
    "palette6": {"dtype": "palette6"},
    "palette4": {"dtype": "palette4", "granularity": "grouped_channel", "group": 16},
}
WEIGHTS = [
    ("openvino", "channel"),
    ("openvino", "tensor"),
    ("openvino", "unsigned"),
    ("openvino", "blocks"),
    ("onnxruntime", "channel"),
    ("onnxruntime", "tensor"),
    ("onnxruntime", "unsigned"),
    ("onnxruntime", "blocks"),
    ("coreml", "channel"),
    ("coreml", "blocks"),
    ("coreml", "palette6"),
    ("coreml", "palette4"),
    ("tensorrt", "channel"),
    ("openvino", "branch"),
    ("onnxruntime", "branch"),
    ("coreml", "branch"),
    ("tensorrt", "branch8"),
]
QUICK = {("openvino", "channel"), ("coreml", "palette4")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sd", tmp_path_factory.mktemp("models") / "sd")


@pytest.fixture(scope="module")
def source(model: Path) -> TracedPipeline:
    return trace_pipeline(model, FAMILIES["sd"].arguments() | CALL, components=["unet"])


def plan_file(folder: Path, rules: list[dict[str, Any]], floats: str) -> Path:
    folder.mkdir(exist_ok=True)
    default = {"select": {"component": "*"}, "weights": {"dtype": floats}}
    return write_plan(folder, plan() | {"rules": [default, *rules]})


def lowered(
    source: TracedPipeline, folder: Path, target: str, rules: list[dict[str, Any]], floats: str
) -> tuple[Path, PlannedGraphs]:
    """A folder with the UNet, of which weights alone are quantized, and what became of its sites."""
    profile = load_target(target)
    planned = plan_graphs(source, load_plan(plan_file(folder, rules, floats)), profile)
    backend = get_backend(profile.runtime)
    graph, recipe = choose_recipe(planned.graphs[WHERE], planned.resolved, None, backend)
    changed = graph if recipe is None else quantized_graph(graph, recipe)
    lower(changed, planned.resolved.float_types("unet"), profile, folder)
    return folder, planned


def exported(
    model: Path, folder: Path, target: str, rules: list[dict[str, Any]], floats: str
) -> tuple[Path, PlannedGraphs]:
    """The same of an export, which calibrates."""
    file = plan_file(folder, rules, floats)
    call = FAMILIES["sd"].arguments() | CALL
    bundle = folder / target
    qdx.export(model, target=target, plan=file, output=bundle, call=call, components=["unet"])
    source = trace_pipeline(model, dict(call), components=["unet"])
    return bundle / "unet", plan_graphs(source, load_plan(file), load_target(target))


def rule(op: list[str], **schemes: Any) -> dict[str, Any]:
    return {"select": {"component": "unet", "op": op}, **schemes}


def stored(planned: PlannedGraphs, target: str) -> StoredBytes:
    (component,) = (one for one in planned.resolved.components if one.component == "unet")
    return StoredBytes(
        planned.graphs[WHERE],
        planned.resolved.float_types("unet"),
        component.computes,
        get_backend(load_target(target).runtime),
    )


def predicted(planned: PlannedGraphs, target: str) -> int:
    """For Core ML in the file of weights: short constants stand elsewhere."""
    of = stored(planned, target)
    tensors = of.distinct(planned.resolved.sites[WHERE])
    outside = target == "coreml"
    return sum(of.layout.size_bytes(one) for one in tensors if of.layout.has(one) or not outside)


def constants(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of every tensor that the files hold, each once."""
    if (folder / "model.onnx").exists():
        for one in onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in one.external_data}
            inside = len(one.raw_data) or one.ByteSize()
            yield one.name, int(entries["length"]) if "length" in entries else inside
        return
    seen = set()
    layers = ET.parse(folder / "openvino_model.xml").getroot().find("layers")  # our own file
    assert layers is not None
    for layer in layers:
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None and data.get("offset") not in seen:
            seen.add(data.get("offset"))
            yield str(layer.get("name")), int(str(data.get("size")))


def held_bytes(folder: Path) -> int:
    """All tensors of the files: for OpenVINO and Core ML the file of weights itself."""
    if (folder / "openvino_model.bin").exists():
        return (folder / "openvino_model.bin").stat().st_size
    package = folder / "model.mlpackage"
    if package.exists():
        return (package / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    return sum(size for _, size in constants(folder))


@pytest.mark.parametrize(
    ("target", "scheme"),
    [one if one in QUICK else pytest.param(*one, marks=pytest.mark.slow) for one in WEIGHTS],
)
def test_what_quantizing_weights_saves_is_what_the_files_are_smaller(
    source, tmp_path, target, scheme
):
    # Core ML keeps a part of the branch of a convolution that reads the latents in float32.
    alone = scheme == "blocks" or (target, scheme) == ("coreml", "branch")
    op = ["linear"] if alone else ["conv2d", "linear"]
    floats = "float16" if target == "coreml" else "float32"

    before, float_plan = lowered(source, tmp_path / "floats", target, [], floats)
    after, quantized_plan = lowered(
        source, tmp_path / "quantized", target, [rule(op, weights=SCHEMES[scheme])], floats
    )

    shared = 0
    if target == "tensorrt":  # a zero point for all weights of as many channels
        channels = {one.site.weight_shape[0] for one in quantized_plan.resolved.quantized(WHERE)}
        shared = sum(channels)
    saved = predicted(float_plan, target) - predicted(quantized_plan, target)
    assert saved > 0
    difference = saved - (held_bytes(before) - held_bytes(after))
    if (target, scheme) == (
        "openvino",
        "blocks",
    ):  # shapes of weights, into which blocks are joined
        shapes = {one.site.weight_shape for one in quantized_plan.resolved.quantized(WHERE)}
        assert 0 <= difference <= SHAPE_BYTES * len(shapes)
    elif target in {"onnxruntime", "tensorrt"} and "low_rank" in SCHEMES[scheme]:
        # Convolutions without bias share zeros, a vector for each number of channels.
        rows = {
            one.site.weight_shape[0]
            for one in quantized_plan.resolved.quantized(WHERE)
            if one.site.op == "conv2d"
        }
        assert 0 <= difference - shared <= FLOAT_BYTES * (sum(rows) + RANK)
    elif target == "coreml":  # the last tensor of the file is not filled up
        assert abs(difference) < ENTRY_BYTES
    else:
        assert difference == shared


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "onnxruntime", "coreml", "tensorrt"])
def test_rotations_cost_what_is_said(source, tmp_path, target):
    op, floats = ["conv2d", "linear"], "float16" if target == "coreml" else "float32"
    select = {"role": ["conv", "attn.*", "ff.*", "shortcut"]}
    rules = [
        {**rule(op, weights={"dtype": "int8", **more}), "select": {"component": "unet", **select}}
        for more in ({}, {"rotate": {"block": 16}})
    ]
    before, plain = lowered(source, tmp_path / "plain", target, rules[:1], floats)
    after, turned = lowered(source, tmp_path / "turned", target, rules[1:], floats)

    added = predicted(turned, target) - predicted(plain, target)
    matrix_bytes = (
        (2 if floats == "float16" else 4) * 16 * 16
    )  # one of linear layers, one of convolutions
    assert 2 * matrix_bytes <= added <= 2 * (matrix_bytes + ENTRY_BYTES)
    difference = held_bytes(after) - held_bytes(before) - added
    # Shapes of blocks come on top, and in Core ML an entry of each product for its absent bias; OpenVINO's files hold
    # equal bytes once.
    products = len(turned.resolved.quantized(WHERE)) if target == "coreml" else 0
    assert -matrix_bytes <= difference <= 0.01 * predicted(turned, target) + ENTRY_BYTES * products


@pytest.mark.slow
def test_the_files_of_onnx_runtime_hold_for_each_quantized_weight_what_is_said(model, tmp_path):
    folder, planned = exported(
        model, tmp_path, "onnxruntime",
        [rule(["conv2d", "linear"], weights=INT8, inputs=INT8)], "float32",
    )  # fmt: skip
    of = stored(planned, "onnxruntime")

    held = dict(constants(folder))

    for resolution in planned.resolved.sites[WHERE]:
        weight = resolution.site.weight
        if weight is None or not resolution.quantized_weights:
            continue
        bias = weight.removesuffix("weight") + "bias"
        own = {
            name: size
            for name, size in held.items()
            if name.startswith(weight) or (name.startswith(bias) and name.endswith("_scale"))
        }
        said = of.tensors(resolution)
        assert sum(own.values()) == sum(one.size_bytes for one in said), (weight, own, said)


@pytest.mark.slow
def test_quantized_inputs_add_to_the_files_of_openvino_their_quantizers_alone(
    model, source, tmp_path
):
    schemes = {"weights": INT8, "inputs": INT8}
    before, weights = lowered(
        source, tmp_path / "a", "openvino", [rule(["conv2d", "linear"], weights=INT8)], "float32"
    )
    after, both = exported(
        model, tmp_path / "b", "openvino", [rule(["conv2d", "linear"], **schemes)], "float32"
    )

    quantizers = len(both.resolved.quantized(WHERE))
    assert predicted(weights, "openvino") == predicted(both, "openvino")
    assert 0 <= held_bytes(after) - held_bytes(before) <= quantizers * QUANTIZER_BYTES


@pytest.mark.parametrize(
    "target", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_the_layout_tells_the_file_from_its_tensors(source, tmp_path, target):
    folder, _ = lowered(source, tmp_path, target, [], "float32")
    backend = get_backend(target)
    assert isinstance(backend, StoresWeights)
    file = folder / ("openvino_model.bin" if target == "openvino" else "model.onnx_data")

    tensors = [StoredTensor(name, size, size) for name, size in constants(folder)]

    assert backend.weight_file.file_bytes(tensors) == file.stat().st_size
