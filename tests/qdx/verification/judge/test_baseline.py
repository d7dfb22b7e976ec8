"""A regression against an earlier report is a gate that fails; noise and improvements pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qdx.exporter.errors import UsageError
from qdx.verification.judge.baseline import baseline_gates, baseline_of, check_comparable, runs_of
from qdx.verification.judge.measures import measures_of
from qdx.verification.judge.scales import SCALES
from qdx.verification.judge.verdict import verdict_of
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.lockstep import LockstepCall
from qdx.verification.measure.lockstep_runs import LockstepResult
from qdx.verification.measure.picture import OutputResult, PipelineResult
from qdx.verification.measure.samples import RunResult, RunSpec, Samples
from tests.support.judging import call_result, report_of

CHANCE = np.random.default_rng(0)


def picture(psnr_db: float, ssim: float = 0.95) -> PipelineResult:
    return PipelineResult({"images": OutputResult("pictures", {"psnr_db": psnr_db, "ssim": ssim})})


def method(sqnr_db: float, component: str = "unet") -> MethodResult:
    return MethodResult(component, "forward", 2, (call_result(0, sqnr_db), call_result(1, 99)))


def one(sqnr_db: float = 40.0, psnr_db: float = 30.0, ssim: float = 0.95, **more):
    return report_of([method(sqnr_db)], pipeline=picture(psnr_db, ssim), **more)


def several(values, *, first_seed=0, prompt="a red circle", **more):
    """A report of several runs, whose pictures and calls have these decibels."""
    runs = tuple(
        RunResult(RunSpec({"prompt": prompt}, first_seed + n), (method(v + 10),), picture(v), None)
        for n, v in enumerate(values)
    )
    return report_of(
        [method(values[0] + 10)], pipeline=picture(values[0]), samples=Samples(runs), **more
    )


def gates_against(before, after, drop_db=1.0):
    kept = baseline_of(
        before.stored, "old/report.json", after.contract, runs_of(after.stored), drop_db
    )
    return {g.name: g for g in baseline_gates(kept, after.stored)}


def failed(before, after, drop_db=1.0):
    return [name for name, gate in gates_against(before, after, drop_db).items() if not gate.ok]


def test_equal_reports_hold_every_gate_and_each_says_what_was_before():
    gates = gates_against(one(), one())

    assert list(gates) == [
        "baseline.unet.sqnr_db",
        "baseline.pipeline.psnr_db",
        "baseline.pipeline.ssim",
    ]
    assert all(gate.ok for gate in gates.values())
    assert str(gates["baseline.unet.sqnr_db"]) == (
        "baseline.unet.sqnr_db: 40 (40 before), expected at least 39"
    )


@pytest.mark.parametrize(
    ("after", "names"),
    [
        (one(sqnr_db=37), ["baseline.unet.sqnr_db"]),
        (one(sqnr_db=39.1), []),
        (one(sqnr_db=60), []),
        (one(psnr_db=27), ["baseline.pipeline.psnr_db"]),
        (one(ssim=0.9), ["baseline.pipeline.ssim"]),  # twice the distance from 1: 3 dB
        (one(ssim=0.94), []),
        (one(sqnr_db=math.nan), ["baseline.unet.sqnr_db"]),
        (one(psnr_db=math.nan, ssim=math.nan), ["baseline.pipeline.psnr_db", "baseline.pipeline.ssim"]),
        (report_of([method(40, "vae")], pipeline=picture(30)), ["baseline.unet.sqnr_db"]),
    ],
    ids=["3 dB less", "noise", "better", "picture", "structure", "structure's noise", "NaN", "no picture", "gone"],
)  # fmt: skip
def test_what_fell_by_more_than_a_decibel_fails_and_nothing_else(after, names):
    assert failed(one(), after) == names


def test_the_user_says_how_many_decibels():
    assert failed(one(), one(sqnr_db=37), 4.0) == []
    assert failed(one(), one(sqnr_db=39.7), 0.2) == ["baseline.unet.sqnr_db"]


def test_beyond_what_rounding_tells_apart_nothing_is_worse():
    assert failed(one(sqnr_db=130, psnr_db=110, ssim=1.0), one(81, 60, 0.9999)) == []
    assert failed(one(sqnr_db=130), one(sqnr_db=70)) == ["baseline.unet.sqnr_db"]


def test_what_the_earlier_report_could_not_measure_has_no_gate():
    assert "baseline.unet.sqnr_db" not in gates_against(one(sqnr_db=math.nan), one())


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_gives_back_its_values_and_more_is_better(name):
    scale = SCALES[name]
    values = {"least_strength": 0.8, "greatest_strength": 1.3}
    value = values.get(name, 0.5)
    better = value * (1.1 if scale.better == "more" else 0.9)

    assert scale.value(scale.score(value)) == pytest.approx(value)
    assert scale.score(better) > scale.score(value)


def test_the_noise_of_several_runs_does_not_alarm_and_a_drop_of_all_does():
    before = CHANCE.normal(30, 2, 8)
    for _ in range(20):
        noise = CHANCE.normal(0, 0.5, 8)

        assert failed(several(before), several(before + noise)) == []
        assert failed(several(before), several(before - 3 + noise)) == [
            "baseline.unet.sqnr_db", "baseline.pipeline.psnr_db",
        ]  # fmt: skip


def test_other_seeds_are_compared_by_their_means():
    for _ in range(20):
        before, after = several(CHANCE.normal(30, 1, 8)), CHANCE.normal(30, 1, 8)

        assert failed(before, several(after, first_seed=50)) == []
        assert "baseline.pipeline.psnr_db" in failed(before, several(after - 5, first_seed=50))


def test_of_other_seeds_what_one_run_measured_is_not_compared_and_that_is_said():
    lockstep = {"quantized": frozenset({"unet.forward"}), "lockstep": (LockstepCall(
        "unet.forward", 0, LockstepResult.at({"mid": {"sqnr_db": 50.0}})),)}  # fmt: skip
    before = several([30.0] * 8, **lockstep)
    after = several([30.0] * 8, first_seed=50, **lockstep)
    kept = baseline_of(before.stored, "old", after.contract, runs_of(after.stored), 1.0)

    assert kept.left_out == ("unet.forward.lowering.sqnr_db",)
    assert (
        "unet.forward.lowering.sqnr_db"
        in str(replace(after, baseline=kept).judged()).splitlines()[1]
    )
    assert "baseline.unet.forward.lowering.sqnr_db" in gates_against(before, before)


COMPARED = {
    "another target": (one(target="openvino-x"), "target"),
    "other steps": (one(call={"prompt": "a red circle", "num_inference_steps": 9}), "num_inference_steps"),
    "another seed": (one(seed=3), "runs: `seed 3"),
    "another prompt": (one(call={"prompt": "a cat"}), "a cat"),
    "more runs": (several([30.0, 31.0]), "runs"),
    "few other seeds": (several([30.0] * 4, first_seed=9), "runs"),
    "other prompts": (several([30.0] * 8, prompt="a cat"), "a cat"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMPARED)
def test_reports_of_other_verifications_are_refused_and_what_differs_is_named(case):
    before = several([30.0] * 8) if "prompts" in case else one()
    after, words = COMPARED[case]
    stored = after.stored
    with pytest.raises(UsageError) as caught:
        check_comparable(before.stored, stored.target, dict(stored.call), runs_of(stored))

    assert words in caught.value.message
    assert "--seeds" in caught.value.hint


def test_a_report_with_a_baseline_is_judged_from_its_own_file():
    after = one(sqnr_db=37)
    kept = baseline_of(one().stored, "old/report.json", after.contract, runs_of(after.stored), 1.0)
    held = replace(after, baseline=kept).judged()

    assert [gate.name for gate in held.gates if not gate.ok][-1] == "baseline.unet.sqnr_db"
    assert verdict_of(held.stored) == held.gates
    assert "held against old/report.json" in str(held)


def test_measures_have_the_names_of_gates():
    report = one()
    gates = {gate.name for gate in report.gates}

    assert gates <= measures_of(report.stored).keys()
