"""Quantizer by quantizer: what becomes of artifacts that cannot be compared so."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from qdx.backends.lockstep import UnknownQuantizer
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.plan.gates import LoweringGates
from qdx.exporter.plan.load import load_plan
from qdx.verify import lockstep
from qdx.verify.acceptance import Evidence, gates_of
from qdx.verify.lockstep import LockstepCall, LockstepResult, measure_in_lockstep
from qdx.verify.picture import OutputResult, PipelineResult

PIPELINE = PipelineResult({"images": OutputResult("pictures", 60.0, 0.99)})


def lowering_gate(*calls):
    contract = load_plan("float16").gates.model_copy(
        update={"lowering": LoweringGates(sqnr_db_min=40)}
    )
    evidence = Evidence(frozenset({"unet.forward"}), lockstep=calls)
    gates = gates_of(contract, (), None, PIPELINE, evidence)
    return next(gate for gate in gates if gate.name == "unet.forward.lowering.sqnr_db")


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (UnknownQuantizer("quantize_tensor_8"), "quantize_tensor_8, which the artifact alone has"),
        (InvalidBundle("`model.onnx`: cannot be cut", hint="-"), "`model.onnx`: cannot be cut"),
    ],
)
def test_an_artifact_that_cannot_be_cut_as_the_graph_fails_at_the_gate(
    tmp_path, monkeypatch, error, note
):
    def refuse(*_):
        raise error

    monkeypatch.setattr(lockstep, "get_backend", lambda _: SimpleNamespace(open_lockstep=refuse))
    monkeypatch.setattr(lockstep, "checked_options", lambda _: {})
    monkeypatch.setattr(lockstep, "quantizer_shapes", lambda _: {})
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
        LockstepCall("unet.forward", 0, LockstepResult({"mid": 50.0})),
        LockstepCall("unet.forward", 1, LockstepResult({"up": math.nan})),
    ]

    gate = lowering_gate(*calls[::order])

    assert not gate.ok
    assert gate.note == "worst at up, call 1"
