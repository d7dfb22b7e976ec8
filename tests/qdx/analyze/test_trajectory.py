"""Numbers of runs put together, against direct computation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from qdx.analyze.trajectory import _gains
from qdx.analyze.trajectory_section import section_of, steps_of_calls

WHERE = "unet.forward"


def test_gains_are_the_mean_change_by_unit_errors_through_an_explicit_jacobian():
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(12, 20, generator=generator)
    course = SimpleNamespace(
        latents=[torch.zeros(12)],
        steps=1,
        timesteps=(1.0,),
        scheduler=None,
        backward=lambda vectors: [({}, {0: jacobian.T @ v}) for v in vectors],
    )
    found = sum(_gains(course, seed)["gains"][0] ** 2 for seed in range(300)) / 300

    units = torch.nn.functional.normalize(torch.randn(20, 20000, generator=generator), dim=0)
    assert found == pytest.approx(float((jacobian @ units).square().sum(0).mean()), rel=0.05)


def step(**given):
    usual = {"divergence": 1.0, "norm_ratio": 1.0, "correlation": 0.5, "latents_noise": 0.01}
    return usual | given


def call(number, noise, share):
    return {"where": WHERE, "number": number, "noise": noise, "loss_penalty": 2.0, "share": share}


def rows(*runs):
    found = {}
    for sample, calls in enumerate(runs):
        found[f"gains.{sample}"] = {"sampler": "S", "timesteps": [5.0, 1.0], "gains": [3.0, 4.0]}
        steps = [step(), step(divergence=None, norm_ratio=0.8 + 0.4 * sample)]
        figures = {"latents_noise": 0.01, "psnr_db": 20.0 + sample, "ssim": None}
        found[f"option.{sample}.0"] = {
            "why_no_divergence": "", "steps": steps, "calls": calls, **figures
        }  # fmt: skip
        if sample == 0:
            found["segment.0.0.0"] = {"steps": [0, 2], **figures}
    return found


def put_together(*runs):
    treatment = SimpleNamespace(option=1, label="int8")
    steps = steps_of_calls([(WHERE, 5.0), (WHERE, 5.0), (WHERE, 1.0)])
    return section_of(
        rows(*runs), [treatment], samples=len(runs), segments=1, probes=4, steps=steps
    )


def test_weights_are_shares_over_noise():
    first = [call(0, 0.1, 0.2), call(1, 0.3, 0.2), call(2, 0.1, 0.6)]
    second = [call(0, 0.1, -0.3), call(1, 0.1, 0.1), call(2, 0.1, 1.2)]

    found = put_together(first, second)

    # The two calls of the first step have 0.4 of the error for a mean noise of 0.2: 2 to 6 in one run, 0 to 12 in the other.
    assert {one.step: one.weight for one in found.weights} == pytest.approx(
        {0: (0.25 + 0) / 2, 1: (0.75 + 1) / 2}
    )


def test_what_is_followed_is_the_mean_over_runs():
    found = put_together(
        [call(0, 0.1, 0.5), call(1, 0.1, 0.2), call(2, 0.1, 0.3)],
        [call(0, 0.3, 0.1), call(1, 0.1, 0.2), call(2, 0.1, 0.7)],
    )
    (option,) = found.options

    assert [one.step for one in option.calls] == [0, 0, 1]
    assert (option.calls[0].noise, option.calls[0].share) == pytest.approx((0.2, 0.3))
    assert option.norm_ratio == pytest.approx(1.0)
    assert option.divergence == 1.0  # the last step has no term
    assert option.picture.latents_sqnr_db == pytest.approx(20)
    assert option.picture.psnr_db == pytest.approx(20.5)
    assert option.picture.ssim is None
    assert option.segments[0].steps == (0, 2)
    assert [one.gain for one in found.gains] == [3.0, 4.0]
