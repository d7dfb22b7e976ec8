"""Quantizer by quantizer: what becomes of artifacts that cannot be compared so."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest

from qdx.backends.lockstep import UnknownQuantizer
from qdx.backends.openvino.lockstep import OpenVinoChunks
from qdx.backends.registry import get_backend
from qdx.bundle.manifest import InputPort, OutputPort
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.gates import LoweringGates
from qdx.exporter.transforms.insert import insert
from qdx.runtime.graph_runner import GraphRunner
from qdx.runtime.methods import TargetMethod
from qdx.targets.profile import load_target
from qdx.verification.measure import lockstep, lockstep_runs
from qdx.verification.measure.lockstep import LockstepCall, measure_in_lockstep
from qdx.verification.measure.lockstep_runs import LockstepResult
from tests.support.judging import CONTRACT, report_of
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import A8, W8, FixedRanges, resolved, weighted
from tests.support.tracing import Block, block_inputs, graph_of


def lowering_gate(*calls):
    contract = CONTRACT.model_copy(update={"lowering": LoweringGates(sqnr_db_min=40)})
    quantized = frozenset({"unet.forward"})
    report = report_of(contract=contract, quantized=quantized, lockstep=calls)
    return next(gate for gate in report.gates if gate.name == "unet.forward.lowering.sqnr_db")


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (UnknownQuantizer("quantize_tensor_8"), "quantize_tensor_8, which the artifact alone has"),
        (InvalidBundle("`model.onnx`: cannot be cut", hint="-"), "`model.onnx`: cannot be cut"),
        (None, "the backend `toy` does not open artifacts cut at their quantizers"),
    ],
)
def test_an_artifact_that_cannot_be_cut_as_the_graph_fails_at_the_gate(
    tmp_path, monkeypatch, error, note
):
    def refuse(*_):
        raise error

    able = {} if error is None else {"open_lockstep": refuse}
    backend = SimpleNamespace(name="toy", **able)
    monkeypatch.setattr(lockstep, "get_backend", lambda _: backend)
    monkeypatch.setattr(lockstep, "checked_options", lambda _: {})
    monkeypatch.setattr(lockstep, "quantizer_shapes", lambda _: {})
    monkeypatch.setattr(lockstep, "quantizers", lambda _: {})
    entry = SimpleNamespace(methods={"forward": SimpleNamespace(opened="unet")})
    manifest = SimpleNamespace(
        components={"unet": entry}, target=SimpleNamespace(runtime="openvino")
    )
    calls = tuple(SimpleNamespace(index=index) for index in range(9))
    found = measure_in_lockstep(
        SimpleNamespace(path=tmp_path, manifest=manifest),
        SimpleNamespace(quantized={"unet.forward": None}),
        {"unet.forward": None},
        {"unet.forward": SimpleNamespace(calls=calls)},
    )
    gate = lowering_gate(*found)

    assert [call.index for call in found] == [0, 4, 8]
    assert all(call.to_json()["sqnr_db"] is None for call in found)
    assert not gate.ok
    assert gate.value is None
    assert gate.note == f"worst at {note}, call 0"


@pytest.mark.parametrize("order", [1, -1])
def test_the_gate_names_the_call_without_a_number(order):
    calls = [
        LockstepCall("unet.forward", 0, LockstepResult.at({"mid": {"sqnr_db": 50.0}})),
        LockstepCall("unet.forward", 1, LockstepResult.at({"up": {"sqnr_db": math.nan}})),
    ]

    gate = lowering_gate(*calls[::order])

    assert not gate.ok
    assert gate.note == "worst at up, call 1"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A quantized graph, and the folder of its artifact."""
    graph, _ = graph_of(Block, block_inputs())
    profile, backend = load_target("openvino"), get_backend("openvino")
    plan = resolved(graph, weighted(W8, A8))
    placement = backend.place(graph, sites(graph), plan, FixedRanges())
    made = insert(graph, sites(graph), placement)
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "block").mkdir()
    lower(made, FloatTypes("float32"), profile, folder / "block")
    return made, folder


def measured(monkeypatch, opened, **options):
    """Five recorded calls of the method, of which some are compared."""
    graph, folder = opened
    monkeypatch.setattr(lockstep, "checked_options", lambda _: {})
    entry = SimpleNamespace(methods={"forward": SimpleNamespace(opened="block")})
    manifest = SimpleNamespace(
        components={"block": entry}, target=SimpleNamespace(runtime="openvino")
    )
    ports = tuple(
        InputPort(argument=spec.name, name=spec.name, dtype=spec.dtype, shape=spec.shape)
        for spec in graph.inputs
    )
    output = OutputPort(field="y", name="y", dtype="float32", shape=graph.outputs[0].shape)
    method = TargetMethod("block.forward", ports, (output,), {}, GraphRunner(graph))
    calls = tuple(
        SimpleNamespace(index=2 * i, inputs={n: (1 + i) * t for n, t in block_inputs().items()})
        for i in range(5)
    )
    return measure_in_lockstep(
        SimpleNamespace(path=folder, manifest=manifest),
        SimpleNamespace(quantized={"block.forward": graph}),
        {"block.forward": method},
        {"block.forward": SimpleNamespace(calls=calls)},
        **options,
    )


def streamed(monkeypatch, limit_bytes):
    """Lets a chunk take that much."""
    compare = partial(lockstep.compare_together, limit_bytes=limit_bytes)
    monkeypatch.setattr(lockstep, "compare_together", compare)


def test_the_caller_chooses_the_calls(monkeypatch, opened):
    found = measured(monkeypatch, opened, choose=lambda count: [count - 1])

    assert [call.index for call in found] == [8]
    assert found[0].sqnr_db > 45


@pytest.mark.parametrize(("together_bytes", "times_opened"), [(1 << 40, 1), (1, 3)])
def test_calls_side_by_side_open_each_part_once_and_find_the_same(
    monkeypatch, opened, together_bytes, times_opened
):
    streamed(monkeypatch, 1)
    alone = [measured(monkeypatch, opened, choose=lambda _, i=i: [i])[0] for i in (0, 2, 4)]
    parts = []
    opens = OpenVinoChunks.open

    def counted(self, chunk, arrays):
        parts.append(chunk)
        return opens(self, chunk, arrays)

    monkeypatch.setattr(OpenVinoChunks, "open", counted)
    monkeypatch.setattr(lockstep, "_TOGETHER_BYTES", together_bytes)
    found = measured(monkeypatch, opened)

    assert alone == list(found)
    assert len({call.sqnr_db for call in found}) == 3  # the calls differ
    assert len(set(parts)) > 1
    assert len(parts) == times_opened * len(set(parts))


def test_a_part_that_does_not_open_fails_at_the_gate(monkeypatch, opened):
    opens = OpenVinoChunks.open

    def refuse(self, chunk, arrays):
        if "y" in chunk.outputs:
            raise InvalidBundle("`openvino_model.xml`: cannot be opened", hint="-")
        return opens(self, chunk, arrays)

    monkeypatch.setattr(OpenVinoChunks, "open", refuse)
    streamed(monkeypatch, 1)
    found = measured(monkeypatch, opened)

    assert [call.index for call in found] == [0, 4, 8]
    assert all(math.isnan(call.sqnr_db) for call in found)
    assert found[0].result.worst[0] == "`openvino_model.xml`: cannot be opened"


@pytest.mark.parametrize(("limit_bytes", "most"), [(1, 2), (1 << 30, 6)])
def test_values_are_held_until_the_last_chunk_that_reads_them(
    monkeypatch, opened, limit_bytes, most
):
    counts = []

    class Held(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            counts.append(len(self))

    create = lockstep_runs._Stream.__init__

    def counted(self, *arguments, **options):
        create(self, *arguments, **options)
        self._values = Held()

    monkeypatch.setattr(lockstep_runs._Stream, "__init__", counted)
    streamed(monkeypatch, limit_bytes)
    measured(monkeypatch, opened, choose=lambda _: [0])

    assert len(counts) == 6
    assert max(counts) == most
