from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.verification.judge.gates import at_least
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.picture import OutputResult, PipelineResult
from tests.support.judging import (
    CONTRACT,
    call_result,
    component_gates,
    pipeline_gates,
    report_of,
)


def method(*decibels: float, component: str = "unet", error: str = "") -> MethodResult:
    calls = tuple(call_result(i, value, error) for i, value in enumerate(decibels))
    return MethodResult(component, "forward", len(calls), calls, error)


@given(st.floats(), st.floats())
def test_a_gate_holds_only_for_finite_values_that_reach_the_bound(value, bound):
    gate = at_least("g", value, bound)

    assert gate.ok == (math.isfinite(value) and math.isfinite(bound) and value >= bound)
    assert gate.value is None or math.isfinite(gate.value)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_no_number_fails_and_says_so(value):
    gate = at_least("g", value, -1e9)

    assert not gate.ok
    assert gate.value is None
    assert gate.note
    assert "not measured" in str(gate)


def test_a_gate_says_value_and_bound():
    assert str(at_least("unet.sqnr_db", 48.125, 50)) == "unet.sqnr_db: 48.125, expected at least 50"


def test_the_bound_itself_is_enough():
    assert at_least("g", 50.0, 50.0).ok
    assert not at_least("g", math.nextafter(50.0, 0), 50.0).ok


def test_one_gate_for_each_component_on_its_worst_call():
    gates = component_gates([method(60, 51, 70), method(90, component="vae")], 50)

    assert [(g.name, g.value, g.ok) for g in gates] == [
        ("unet.sqnr_db", 51, True),
        ("vae.sqnr_db", 90, True),
    ]


def test_one_bad_call_among_good_ones_fails():
    assert not component_gates([method(200, 200, 49.9)], 50)[0].ok
    assert not component_gates([method(200, math.nan, 200)], 50)[0].ok


def test_a_method_without_calls_fails_its_component():
    gates = component_gates([method(90), method(error="never called")], 50)

    assert [gate.ok for gate in gates] == [False]
    assert gates[0].note == "never called"


def test_nothing_compared_is_a_failed_gate():
    gates = component_gates([], 50)

    assert [gate.ok for gate in gates] == [False]


def test_the_second_shape_is_gated_too():
    gates = report_of([method(90)], other_methods=(method(10),)).gates

    assert {gate.name: gate.ok for gate in gates} == {
        "unet.sqnr_db": True,
        "other_shape.unet.sqnr_db": False,
        "pipeline.psnr_db": True,
        "pipeline.ssim": True,
    }


def test_bounds_come_from_the_plan():
    gates = report_of([method(90)]).gates

    assert [gate.bound for gate in gates] == [
        CONTRACT.component.sqnr_db_min,
        CONTRACT.pipeline.psnr_db_min,
        CONTRACT.pipeline.ssim_min,
    ]


def test_a_pipeline_that_made_nothing_fails_both_gates():
    gates = pipeline_gates(PipelineResult({}, "it broke"))

    assert [(gate.name, gate.ok, gate.note) for gate in gates] == [
        ("pipeline.psnr_db", False, "it broke"),
        ("pipeline.ssim", False, "it broke"),
    ]


def test_sound_has_no_structural_similarity():
    sound = PipelineResult({"audios": OutputResult("sound", {"psnr_db": 60.0})})

    assert [(gate.name, gate.ok) for gate in pipeline_gates(sound)] == [("pipeline.psnr_db", True)]
