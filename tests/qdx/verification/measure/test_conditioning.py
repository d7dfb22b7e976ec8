from __future__ import annotations

import math

import pytest
import torch

from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.verification.measure.conditioning import ConditioningMeter


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(index, latents, timestep, output) -> RecordedCall:
    inputs = {"sample": latents, "timestep": torch.tensor(timestep)}
    return RecordedCall(index, inputs, {"sample": output})


def measured(calls, answers, made=None):
    meter = ConditioningMeter(RecordedMethod(made or len(calls), tuple(calls)))
    for one, answer in zip(calls, answers, strict=True):
        meter.add(one, {} if answer is None else {"sample": answer})
    return meter.finish()


def batched(steps=3):
    latents = [noise(i, 1, 4, 8, 8).repeat(2, 1, 1, 1) for i in range(steps)]
    return [call(i, one, 900 - i, noise(50 + i, 2, 4, 8, 8)) for i, one in enumerate(latents)]


def in_pairs(steps=3):
    return [
        call(2 * i + j, noise(i, 1, 4, 8, 8), 900 - i, noise(50 + 2 * i + j, 1, 4, 8, 8))
        for i in range(steps)
        for j in range(2)
    ]


def weaker(output: torch.Tensor, factor: float) -> torch.Tensor:
    uncond, cond = output.chunk(2)
    return torch.cat([uncond, uncond + factor * (cond - uncond)])


@pytest.mark.parametrize("factor", [1.0, 0.5, 1.25])
def test_halves_of_a_batch_show_how_far_the_prompt_pulls(factor):
    calls = batched()
    found = measured(calls, [weaker(c.outputs["sample"], factor) for c in calls])

    assert [step.index for step in found.steps] == [0, 1, 2]
    assert found.ratio_min == pytest.approx(factor, rel=1e-5)
    assert found.ratio_max == pytest.approx(factor, rel=1e-5)


def test_two_calls_of_one_step_are_a_pair():
    calls = in_pairs()
    answers = [one.outputs["sample"] for one in calls]
    # The second call of the last step answers nearer to the first.
    answers[5] = answers[4] + 0.25 * (answers[5] - answers[4])
    found = measured(calls, answers)

    assert [step.index for step in found.steps] == [1, 3, 5]
    assert [step.ratio for step in found.steps] == pytest.approx([1, 1, 0.25], rel=1e-5)


def test_a_step_without_an_answer_has_no_ratio():
    calls = batched()
    found = measured(calls, [calls[0].outputs["sample"], None, calls[2].outputs["sample"]])

    assert math.isnan(found.ratio_min)
    assert math.isnan(found.ratio_max)
    assert found.to_json()["steps"][1]["ratio"] is None


def test_one_branch_alone_is_not_applicable_and_says_so():
    calls = [call(i, noise(i, 1, 4, 8, 8), 900 - i, noise(9 + i, 1, 4, 8, 8)) for i in range(3)]
    found = measured(calls, [c.outputs["sample"] for c in calls])

    assert not found.applicable
    assert "no classifier-free guidance" in found.note


def test_pairs_that_may_have_been_left_out_are_not_called_absent():
    calls = in_pairs()[::2]
    found = measured(calls, [c.outputs["sample"] for c in calls], made=6)

    assert found.applicable
    assert math.isnan(found.ratio_min)


def test_a_method_without_timesteps_has_no_guidance_at_all():
    record = RecordedCall(0, {"input_ids": torch.zeros(1, 4)}, {"x": torch.zeros(1)})

    assert measured([record], [torch.zeros(1)]) is None
