"""NVFP4 and MXFP8 for TensorRT: files that say what the graph computes, proved without TensorRT's operators.

ONNX Runtime executes the file's own nodes, TensorRT's operators among them by functions of standard operators.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from qdx.backends.lockstep import quantizers
from qdx.backends.tensorrt.emulate.executable import make_executable
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.block_bytes import mxfp8_bytes, nvfp4_bytes
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tensorrt_lowered import BACKEND, Lowered
from tests.support.tracing import block_inputs, graph_of

PROFILE = load_target("tensorrt-blackwell")
BLOCKS = {"nvfp4": 16, "mxfp8": 32}
LOCKSTEP_DB, WHOLE_DB = 45, 60


def broken(made):
    return {one.rule for one in made.findings(PROFILE.compute_capability)}


def wanted(name, *, inputs=True):
    """A format for every linear layer whose inputs are whole blocks, on both sides or for weights alone."""
    weights = Weights(dtype=name, granularity="block", block=BLOCKS[name])
    given = Inputs(dtype=name, granularity="block", mode="dynamic") if inputs else None

    def of(site):
        fits = site.op == "linear" and site.weight_shape[1] % BLOCKS[name] == 0
        return (weights, given) if fits else (None, None)

    return of


def lowered(graph, folder, name, stored="float16", *, inputs=True):
    plan = replace(
        resolved(graph, wanted(name, inputs=inputs)),
        components=(SimpleNamespace(component="block", becomes=stored),),
    )
    ranges = FixedRanges() if name == "nvfp4" and inputs else None
    made = insert(graph, sites(graph), BACKEND.place(graph, sites(graph), plan, ranges))
    folder.mkdir(exist_ok=True)
    lower(made, FloatTypes(stored), PROFILE, folder)
    return Lowered(made, folder)


HOW = (("float16", True), ("float32", True), ("float16", False))
MADE = [(name, *how) for name in BLOCKS for how in HOW]


@pytest.fixture(scope="module")
def made(block, tmp_path_factory):
    """Makes an artifact of a piece of a UNet, each once."""

    @cache
    def once(name, stored, inputs):
        return lowered(block[0], tmp_path_factory.mktemp("lowered"), name, stored, inputs=inputs)

    return lambda name, stored="float16", *, inputs=True: once(name, stored, inputs)


@pytest.fixture(params=MADE, ids=lambda one: f"{one[0]}-{one[1]}{'' if one[2] else '-weights'}")
def artifact(request, made):
    name, stored, inputs = request.param
    return made(name, stored, inputs=inputs)


def test_no_rule_is_broken(artifact):
    allowed = set() if quantizers(artifact.graph) else {"one-operand"}

    assert broken(artifact) <= allowed


def test_the_checker_of_onnx_reads_the_file_and_the_types_behind_its_operators(artifact):
    onnx.checker.check_model(str(artifact.folder / "model.onnx"), full_check=True)
    whole = onnx.load(artifact.folder / "model.onnx")
    make_executable(whole)
    onnx.checker.check_model(whole, full_check=True)


def test_it_computes_what_the_graph_computes(artifact):
    if quantizers(artifact.graph):
        found, cuts = artifact.lockstep(block_inputs())
        assert len(cuts) >= 4
        assert found.worst[1] >= LOCKSTEP_DB
    else:
        assert artifact.whole_db(block_inputs()) >= WHOLE_DB


@pytest.mark.parametrize("name", BLOCKS)
def test_the_form_is_the_one_that_the_parser_reads(made, name):
    model, site = made(name).model, {"nvfp4": "to_q", "mxfp8": "to_out"}[name]
    product = next(n for n in model.graph if n.name == f"{site}/MatMul")
    chain, node = [], product
    while node is not None:
        chain.append(node.op_type)
        node = node.inputs[1 if node is product else 0].producer()
    quantizer = next(n for n in model.graph if n.op_type.endswith("DynamicQuantize"))
    read = ["DequantizeLinear"] if name == "nvfp4" else ["TRT_MXFP8DequantizeLinear"]

    assert chain == ["MatMul", *(["Cast"] if name == "nvfp4" else []), "Transpose", *read]
    assert model.opset_imports[""] == {"nvfp4": 23, "mxfp8": 21}[name]
    assert quantizer.attributes["block_size"].as_int() == BLOCKS[name]
    assert quantizer.attributes["axis"].as_int() == -1
    if name == "nvfp4":
        scale = quantizer.inputs[1]
        assert (scale.dtype, float(scale.const_value.numpy())) == (
            ir.DataType.FLOAT,
            pytest.approx(4.0 / (6 * 448)),
        )


@pytest.mark.parametrize("name", BLOCKS)
def test_sizes_are_within_3_percent_of_theory_and_bytes_do_not_change(tmp_path, name):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(512, 1024, bias=False)
            self.second = nn.Linear(1024, 512, bias=False)

        def forward(self, x):
            return self.second(self.first(x))

    graph, _ = graph_of(Wide, {"x": torch.randn(1, 4, 512)})
    folders = [lowered(graph, tmp_path / str(i), name).folder for i in range(2)]
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    bytes_of = {"nvfp4": nvfp4_bytes, "mxfp8": mxfp8_bytes}[name]
    theory = bytes_of((1024, 512)) + bytes_of((512, 1024))

    assert files[0] == files[1]
    assert sum(map(len, files[0].values())) == pytest.approx(theory, rel=0.03)
    assert theory * 8 / 2**20 == pytest.approx({"nvfp4": 4.5, "mxfp8": 8.25}[name], abs=1e-3)


def test_onnx_itself_reads_the_stored_4_bit_floats_so(tmp_path):
    """The reference evaluator of ONNX has 4-bit floats: it executes the file as it is, TensorRT's operators aside."""
    x = torch.randn(2, 3, 64)
    graph, _ = graph_of(lambda: nn.Linear(64, 32), {"input": x})
    made = lowered(graph, tmp_path, "nvfp4", "float32", inputs=False)
    evaluator = ReferenceEvaluator(onnx.load(made.folder / "model.onnx"))

    (found,) = evaluator.run(None, {"input": x.numpy()})
    assert sqnr_db(made.answer({"input": x}), torch.from_numpy(found)) >= 120


@pytest.mark.parametrize("name", BLOCKS)
def test_sizes_may_be_open(dynamic_block, tmp_path, name):
    made = lowered(dynamic_block[0], tmp_path, name, "float32")

    assert broken(made) == set()
    for batch, size in ((2, 8), (3, 4)):
        assert made.lockstep(block_inputs(batch=batch, size=size))[0].worst[1] >= LOCKSTEP_DB


def test_four_dimensions_are_refused_with_the_reason(tmp_path):
    graph, _ = graph_of(lambda: nn.Linear(32, 32), {"input": torch.randn(1, 4, 4, 32)})

    with pytest.raises(TargetRefusal) as refused:
        lowered(graph, tmp_path, "nvfp4")
    (one,) = refused.value.refusals
    assert "4 dimensions, expected two or three" in one.reason


def test_the_proof_says_what_stands_in_for_the_operators(made):
    proof = BACKEND.proof([made("mxfp8").folder])

    assert proof.status == "artifact-verified"
    assert "TensorRT's own operators by their definitions" in proof.executed_by


@pytest.mark.parametrize(("name", "kind"), [("nvfp4", "float4_e2m1fn"), ("mxfp8", "float8_e4m3fn")])
def test_the_audit_names_the_type_of_both_factors(made, name, kind):
    audit = BACKEND.audit(made(name).folder, {})
    found = {key: one.precision for one in audit for key in one.sites}

    assert {found[key] for key in ("to_q", "to_out", "proj", "ff")} == {kind}
    assert found["conv_in"] == "float32", "it reads the noise from the picture"


# Planted faults


def first(model, op_type):
    return next(node for node in model.graph.node if node.op_type == op_type)


def set_initializer(model, name, change):
    tensor = next(each for each in model.graph.initializer if each.name == name)
    packed = tensor.data_type == onnx.TensorProto.FLOAT4E2M1
    raw = np.frombuffer(tensor.raw_data, np.uint8) if packed else onnx.numpy_helper.to_array(tensor)
    tensor.raw_data = change(raw.copy()).tobytes()


def other_tensor_scale(model):
    """Of the quantizer alone: doubled on both sides, it halves the scales of blocks and changes nothing."""
    quantizer = first(model, "TRT_FP4DynamicQuantize")
    model.graph.initializer.append(onnx.helper.make_tensor("doubled", 1, [], [0.01]))
    quantizer.input[1] = "doubled"


def swap_halves(model):
    set_initializer(model, "to_q.weight", lambda a: (a << 4) | (a >> 4))


def next_power(model):
    set_initializer(model, "to_q.weight_exponent", lambda a: a + np.uint8(1))


def swap_block_scales(model):
    set_initializer(model, "to_q.weight_block_scale", lambda a: a[:, ::-1])


@pytest.mark.parametrize(
    ("name", "inputs", "fault"),
    [("nvfp4", True, other_tensor_scale), ("nvfp4", False, swap_halves),
     ("nvfp4", False, swap_block_scales), ("mxfp8", False, next_power)],
)  # fmt: skip
def test_a_planted_fault_is_found(made, tmp_path, name, inputs, fault):
    right = made(name, inputs=inputs)
    model = onnx.load(right.folder / "model.onnx")
    fault(model)
    onnx.save(model, tmp_path / "model.onnx")
    shutil.copy(right.folder / "build.json", tmp_path)
    wrong = replace(right, folder=tmp_path)

    if inputs:
        assert wrong.lockstep(block_inputs())[0].worst[1] < LOCKSTEP_DB
    else:
        assert wrong.whole_db(block_inputs()) < WHOLE_DB
