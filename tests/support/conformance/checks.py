"""The checks; each is a sentence about a backend. `CHECKS` has those of a backend, `KIND_CHECKS` those of a kind too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.capabilities import (
    OpensInLockstep,
    Saturates,
    SwitchesOptimizationsOff,
)
from qdx.backends.contract import KernelExecution, LoweredFiles, Proof
from qdx.backends.layout import graph_in_layout
from qdx.backends.lockstep import quantizers
from qdx.exporter.errors import InvalidBundle, TargetRefusal, UsageError
from qdx.exporter.graph.ir.graph import TensorSpec
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep
from tests.support.conformance.cases import case_of, dynamic_block
from tests.support.conformance.subject import Subject
from tests.support.lowering import lower
from tests.support.tracing import block_inputs, graph_of, sqnr_db

__all__ = ["CHECKS", "KIND_CHECKS", "QUANTIZED_CHECKS"]

FLOAT_DB = 80.0
"""The same arithmetic in float32, summed in another order."""
LOCKSTEP_DB = 45.0
"""Fed the graph's own values: the same integers, and float32 between them."""
WHOLE_DB = 30.0
"""Uncut: roundings fall the other way now and then, and a runtime may round its outputs to 8 bits as well."""
_FLOATS = ("float32", "float16", "bfloat16")


def agrees_with_pytorch(subject: Subject, kind: str) -> None:
    case = case_of(kind)

    found = subject.run(subject.floats(kind).folder, case.inputs)

    assert found.dtype == np.float32
    assert sqnr_db(case.expected, found) > FLOAT_DB


def every_placed_site_is_audited_in_low_precision(subject: Subject, kind: str) -> None:
    """Quantizers survive the way into the artifact, and the audit knows each site by its key."""
    made = subject.quantized(kind)
    assert made.placement is not None
    assert made.resolved is not None
    narrow = {site.key for site in made.placement.sites if site.inputs}
    narrow &= {r.key for r in made.resolved.quantized(made.graph.where) if r.form == "native"}
    executed = subject.backend.audit(made.folder, subject.profile.options, threads=1)
    found: dict[str, set[str]] = {}
    for kernel in executed:
        assert isinstance(kernel, KernelExecution)
        for key in kernel.sites:
            found.setdefault(key, set()).add(kernel.precision)

    joined = {"tied"}  # the same product as `ff`, which a lowering may compute once
    assert narrow
    assert {key: found.get(key) for key in narrow - joined} == {
        key: {"int8"} for key in narrow - joined
    }


def the_whole_computes_what_the_quantized_graph_does(subject: Subject, kind: str) -> None:
    made, inputs = subject.quantized(kind), case_of(kind).inputs

    assert sqnr_db(made.answer(inputs), subject.run(made.folder, inputs)) > WHOLE_DB


def each_part_computes_what_the_quantized_graph_does(subject: Subject, kind: str) -> None:
    backend, made, inputs = subject.backend, subject.quantized(kind), case_of(kind).inputs
    if not isinstance(backend, OpensInLockstep):
        pytest.skip(f"the backend `{backend.name}` does not open artifacts cut at their quantizers")
    artifact = backend.open_lockstep(
        made.folder, subject.profile.options, quantizer_shapes(made.graph), threads=1
    )
    arrays = subject.arrays(inputs, subject.open(made.folder))

    found = compare_in_lockstep(made.graph, inputs, artifact, arrays, {"y": "y"})

    # A quantizer that reads an input of the artifact is fed by that.
    assert set(artifact.quantizers) <= set(quantizers(made.graph))
    assert artifact.quantizers or kind not in {"attention", "block"}
    where, worst_db = found.worst
    assert worst_db >= LOCKSTEP_DB, where


def the_name_is_the_runtimes(subject: Subject) -> None:
    assert subject.backend.name == subject.profile.runtime


def versions_are_words(subject: Subject) -> None:
    found, needed = subject.backend.versions(), subject.profile.needs

    assert found
    assert all(isinstance(one, str) and one for pair in found.items() for one in pair)
    assert needed is None or needed in found


def the_face_is_that_of_the_layout(subject: Subject) -> None:
    face = graph_in_layout(case_of("block").graph, subject.profile.layout)
    runner = subject.open(subject.floats("block").folder)

    assert tuple(runner.inputs) == face.inputs
    assert tuple(runner.outputs) == face.outputs


def the_files_are_those_that_were_told(subject: Subject) -> None:
    made = subject.floats("block")
    folder, files = made.folder, made.files
    there = {path for path in folder.rglob("*") if path.is_file()}

    assert isinstance(files, LoweredFiles)
    assert files.model.relative_to(folder).parts[0] == subject.profile.layout.model_file
    assert {path for path in (files.model, *files.others) if path.is_file()} == there


def the_same_graph_has_the_same_bytes_and_nothing_of_this_machine(subject: Subject) -> None:
    def content(folder: Any) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    again = subject.fresh_folder()
    with contextlib.chdir(again):
        lower(case_of("block").graph, FloatTypes("float32"), subject.profile, again)
    one, other = content(subject.floats("block").folder), content(again)

    assert one == other
    assert [name for name, data in one.items() if str(subject.root).encode() in data] == []


def answers_outlive_the_next_call(subject: Subject) -> None:
    runner = subject.open(subject.floats("block").folder)
    inputs = subject.arrays(block_inputs(), runner)
    first = runner(inputs)["y"]
    kept = first.copy()
    runner({name: np.zeros_like(array) for name, array in inputs.items()})

    assert (kept == first).all()


def wrong_inputs_are_all_named(subject: Subject) -> None:
    runner = subject.open(subject.floats("block").folder)
    inputs = subject.arrays(block_inputs(), runner)
    inputs["x"] = inputs["x"].astype(np.float64)[:1]
    inputs["extra"] = inputs.pop("t")

    with pytest.raises(UsageError) as caught:
        runner(inputs)
    assert caught.value.message == (
        "inputs do not match the artifact: `t`: missing; `extra`: not an input; "
        "`x`: got dtype float64, expected float32; `x`: got shape [1, 4, 8, 8], expected [2, 4, 8, 8]"
    )
    assert str(caught.value.hint).startswith("expected x float32[2, 4, 8, 8], t ")


def an_unknown_option_is_a_usage_error(subject: Subject) -> None:
    """At the latest when the artifact first runs."""
    with pytest.raises(UsageError, match="no_such_option"):
        subject.run(subject.floats("linear").folder, case_of("linear").inputs, no_such_option="1")


def garbage_is_an_invalid_bundle(subject: Subject) -> None:
    """Whatever lies there, damaged, cut short or gone, is told of and not fallen over."""
    folder = subject.fresh_folder()
    files = lower(case_of("linear").graph, FloatTypes("float32"), subject.profile, folder)
    for path in [path for path in (files.model, *files.others) if path.is_file()]:
        path.write_bytes(b"garbage")
    for use in (subject.backend.open, subject.backend.audit):
        with pytest.raises(InvalidBundle):
            use(folder, subject.profile.options, threads=1)


def an_empty_folder_is_an_invalid_bundle(subject: Subject) -> None:
    folder = subject.fresh_folder()
    for use in (subject.backend.open, subject.backend.audit):
        with pytest.raises(InvalidBundle):
            use(folder, subject.profile.options, threads=1)


def types_that_the_target_does_not_store_are_refused(subject: Subject) -> None:
    profile = subject.profile
    for dtype in {*_FLOATS, "float64"} - set(profile.storage_dtypes):
        with pytest.raises(TargetRefusal, match=dtype) as caught:
            lower(case_of("linear").graph, FloatTypes(dtype), profile, subject.fresh_folder())
        assert [one.reason for one in caught.value.refusals]


def every_type_that_the_target_stores_is_lowered(subject: Subject) -> None:
    case, least_db = case_of("linear"), {"float32": FLOAT_DB, "float16": 50.0, "bfloat16": 35.0}
    for dtype in subject.profile.storage_dtypes:
        folder = subject.fresh_folder()
        lower(case.graph, FloatTypes(dtype), subject.profile, folder)
        assert sqnr_db(case.expected, subject.run(folder, case.inputs)) > least_db[dtype], dtype


def open_sizes_are_refused_or_right(subject: Subject) -> None:
    case, profile, folder = dynamic_block(), subject.profile, subject.fresh_folder()
    if profile.limits.dynamic_shapes is not None:
        with pytest.raises(TargetRefusal, match="open sizes") as caught:
            lower(case.graph, FloatTypes("float32"), profile, folder)
        assert profile.limits.dynamic_shapes in str(caught.value)
        return
    lower(case.graph, FloatTypes("float32"), profile, folder)
    runner = subject.open(folder)
    face = graph_in_layout(case.graph, profile.layout)
    assert list(map(_declared, runner.inputs)) == list(map(_declared, face.inputs))
    for batch, size in ((3, 8), (2, 16), (3, 8)):
        inputs = block_inputs(batch=batch, size=size)
        found = runner(subject.arrays(inputs, runner))["y"]
        assert sqnr_db(case.module(**inputs), found) > FLOAT_DB, (batch, size)


def _declared(spec: TensorSpec) -> tuple[Any, ...]:
    """What a face says of an input; open sizes have names of the runtime's own."""
    return spec.name, spec.dtype, [None if isinstance(n, str) else n for n in spec.shape]


class _Unusual(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(x)


def an_operator_without_a_form_is_refused_or_right(subject: Subject) -> None:
    inputs = {"x": torch.linspace(0, 2, 8).reshape(1, 8)}
    graph, module = graph_of(_Unusual, inputs)
    folder = subject.fresh_folder()
    refusal = subject.refusal(lambda: lower(graph, FloatTypes("float32"), subject.profile, folder))
    if refusal is None:
        assert sqnr_db(module(**inputs), subject.run(folder, inputs)) > FLOAT_DB
    else:
        assert "i0" in str(refusal)


def the_proof_says_what_executes_and_what_is_left(subject: Subject) -> None:
    proof = subject.backend.proof([subject.floats("linear").folder])

    assert isinstance(proof, Proof)
    assert proof.status in {"device-verified", "engine-built", "artifact-verified"}
    assert proof.executed_by
    assert bool(proof.unproved) == (proof.status != "device-verified")
    assert bool(proof.compiled) == (proof.status == "engine-built")


def optimizations_off_compute_the_same(subject: Subject) -> None:
    backend, made, case = subject.backend, subject.floats("block"), case_of("block")
    if not isinstance(backend, SwitchesOptimizationsOff):
        pytest.skip(f"the backend `{backend.name}` has none that it could switch off")
    off = backend.unoptimized_options(made.folder)
    if off is None:
        pytest.skip("what runs the artifact here optimizes nothing")
    assert off
    assert sqnr_db(case.expected, subject.run(made.folder, case.inputs, **off)) > FLOAT_DB


def saturation_is_known(subject: Subject) -> None:
    backend = subject.backend
    if not isinstance(backend, Saturates):
        pytest.skip(f"the backend `{backend.name}` has no kernels whose sums saturate")
    assert backend.saturates() in {True, False}


def _named(*checks: Callable[..., None]) -> Mapping[str, Callable[..., None]]:
    return {check.__name__.replace("_", " "): check for check in checks}


KIND_CHECKS = _named(agrees_with_pytorch)
QUANTIZED_CHECKS = _named(
    every_placed_site_is_audited_in_low_precision,
    the_whole_computes_what_the_quantized_graph_does,
    each_part_computes_what_the_quantized_graph_does,
)
CHECKS = _named(
    the_name_is_the_runtimes,
    versions_are_words,
    the_face_is_that_of_the_layout,
    the_files_are_those_that_were_told,
    the_same_graph_has_the_same_bytes_and_nothing_of_this_machine,
    answers_outlive_the_next_call,
    wrong_inputs_are_all_named,
    an_unknown_option_is_a_usage_error,
    garbage_is_an_invalid_bundle,
    an_empty_folder_is_an_invalid_bundle,
    types_that_the_target_does_not_store_are_refused,
    every_type_that_the_target_stores_is_lowered,
    open_sizes_are_refused_or_right,
    an_operator_without_a_form_is_refused_or_right,
    the_proof_says_what_executes_and_what_is_left,
    optimizations_off_compute_the_same,
    saturation_is_known,
)
