"""A pipeline that chooses tokens is judged by what errors that are allowed change of its choices."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.measure.metrics import metrics_of, sqnr_db
from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.verification.measure.picture import OutputResult, PipelineResult
from qdx.verification.measure.samples import RunResult, RunSpec, Samples
from qdx.verification.measure.ties import (
    Noise,
    Ties,
    chooses,
    first_other_choice,
    measure_ties,
    misses_a_bound,
)
from tests.support.judging import report_of

TEXT = torch.ones(1, 4, 8)


def picture(psnr_db: float, ssim: float = 0.9) -> PipelineResult:
    return PipelineResult({"images": OutputResult("pictures", {"psnr_db": psnr_db, "ssim": ssim})})


def records(*tokens: list[int], **more: torch.Tensor) -> dict[str, RecordedMethod]:
    """A run of a transformer that is given these tokens, call by call."""
    calls = tuple(
        RecordedCall(index, {"tokens": torch.tensor([one]), "text": TEXT, **more}, {"logits": TEXT})
        for index, one in enumerate(tokens)
    )
    ids = {"input_ids": torch.tensor([[1, 2]])}
    encoder = RecordedMethod(1, (RecordedCall(0, ids, {"text": TEXT}),))
    return {"text_encoder.forward": encoder, "transformer.forward": RecordedMethod(2, calls)}


@pytest.mark.parametrize("db", [25.0, 50.0])
def test_noise_is_as_far_below_a_tensor_as_asked(db):
    tensor = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(1)) * 3
    noise = Noise(db, 0)

    assert sqnr_db(tensor, noise(tensor)) == pytest.approx(db, abs=0.1)
    assert not torch.equal(noise(tensor), noise(tensor))
    assert torch.equal(Noise(db, 0)(tensor), Noise(db, 0)(tensor))
    tokens = torch.tensor([1, 2])
    assert noise(tokens) is tokens


def test_only_whole_numbers_beside_what_was_computed_are_choices():
    assert chooses(records([7, 7], [3, 7]))
    assert not chooses(records([7, 7], [7, 7]))
    one, two = (RecordedCall(i, {"input_ids": torch.tensor([[i]])}, {}) for i in range(2))
    assert not chooses({"text_encoder.forward": RecordedMethod(2, (one, two))})


def test_the_first_other_choice_is_named():
    run = records([7, 7], [3, 7], [3, 4])
    assert first_other_choice(run, records([7, 7], [3, 7], [3, 4])) is None
    assert first_other_choice(run, records([7, 7], [3, 9], [1, 4])) == ("transformer.forward", 1)


@pytest.mark.parametrize(
    ("psnr_db", "ssim", "misses"),
    [(41, 0.99, False), (39, 0.99, True), (41, 0.9, True)],
)
def test_a_bound_is_missed_by_any_metric(psnr_db, ssim, misses):
    bounds = [
        (metric, {"psnr_db": 40, "ssim": 0.98}[metric.name])
        for metric in metrics_of("pipeline")
        if metric.name in ("psnr_db", "ssim")
    ]
    assert misses_a_bound(picture(psnr_db, ssim), bounds) == misses
    assert not misses_a_bound(PipelineResult({}, "it broke"), bounds)


def made(run, value: float):
    return run, {"images": torch.full((1, 8, 8, 3), value).numpy()}


def test_of_several_runs_with_noise_the_one_that_differs_most_counts():
    run = made(records([7, 7], [3, 7]), 0.5)
    answers = iter(
        [
            made(records([7, 7], [3, 7]), 0.0),
            made(records([7, 7], [3, 9]), 0.6),
            made(records([7, 7], [2, 7]), 0.9),
            made(records([7, 7], [3, 9]), 0.55),
        ]
    )
    ties = measure_ties(run, 50.0, lambda _: next(answers))

    assert ties is not None
    assert (ties.sqnr_db, ties.where, ties.index) == (50.0, "transformer.forward", 1)
    assert ties.pipeline.psnr_db == pytest.approx(-20 * math.log10(0.4), abs=1e-3)
    assert measure_ties(run, 50.0, lambda _: run) is None


def judged(psnr_db: float, ties: Ties | None):
    result = RunResult(RunSpec({}, 5), (), picture(psnr_db, 0.99), None, ties=ties)
    report = report_of(pipeline=result.pipeline, samples=Samples((result,)))
    return next(gate for gate in report.gates if gate.name == "pipeline.psnr_db")


def test_twice_the_error_of_a_tie_is_accepted_and_no_more():
    ties = Ties(50.0, "transformer.forward", 3, picture(20.0))

    assert judged(18.0, ties).ok
    assert judged(18.0, ties).bound == pytest.approx(20 - 10 * math.log10(2), abs=1e-4)
    assert "other tokens from call 3 on" in judged(18.0, ties).note
    assert not judged(16.0, ties).ok
    assert not judged(18.0, None).ok


def test_a_tie_that_changes_little_leaves_the_bound():
    gate = judged(50.0, Ties(50.0, "transformer.forward", 3, picture(60.0)))
    assert (gate.bound, gate.ok) == (40, True)
