"""Terms of the variational bound against divergences of explicit Gaussians."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from qdx.analyze.gaussian import Marginals, Unknown, marginals_of

STEPS = (90.0, 60.0, 30.0, 0.0)
LEVELS = torch.linspace(0.999, 0.02, 100).double()


def preserving(kind="epsilon"):
    return SimpleNamespace(
        alphas_cumprod=LEVELS, config=SimpleNamespace(prediction_type=kind), timesteps=None
    )


class FlowMatchTested:
    """A scheduler of flows."""

    config = SimpleNamespace()
    sigmas = torch.tensor([0.9, 0.5, 0.2, 0.0])
    timesteps = torch.tensor([900.0, 500.0, 200.0])


def posterior(now, then, x, clean):
    """q(x_s|x_t, x_0) as DDPM writes it, for ᾱ_t = now and ᾱ_s = then (Ho et al., 2020, equations 6 and 7)."""
    alpha = now / then
    beta = 1 - alpha
    mean = (
        math.sqrt(then) * beta / (1 - now) * clean + math.sqrt(alpha) * (1 - then) / (1 - now) * x
    )
    return Normal(mean, math.sqrt((1 - then) / (1 - now) * beta))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_terms_are_divergences_of_the_posteriors_of_ddpm(kind, step):
    generator = torch.Generator().manual_seed(step)
    x, right, error = (torch.randn(50, generator=generator).double() for _ in range(3))
    now, then = (float(LEVELS[int(t)]) for t in STEPS[step : step + 2])
    a, b = math.sqrt(now), math.sqrt(1 - now)
    clean_of = {
        "epsilon": lambda p: (x - b * p) / a,
        "v_prediction": lambda p: a * x - b * p,
        "sample": lambda p: p,
    }[kind]
    one, other = (posterior(now, then, x, clean_of(p)) for p in (right, right + error))

    found = marginals_of(preserving(kind), STEPS)

    assert isinstance(found, Marginals)
    expected = float(kl_divergence(one, other).sum())
    assert found.divergence(step, float(error.square().sum())) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("step", [0, 1])
def test_terms_of_flows_are_divergences_of_their_posteriors(step):
    scheduler = FlowMatchTested()
    found = marginals_of(scheduler, (900.0, 500.0, 200.0))

    assert isinstance(found, Marginals)
    t, s = (float(one) for one in scheduler.sigmas[step : step + 2])
    a_t, a_s = 1 - t, 1 - s
    left = t**2 - (a_t / a_s) ** 2 * s**2  # variance of x_t given x_s
    variance = left * s**2 / t**2
    error = torch.tensor([0.3, -0.2]).double()
    shift = a_s * left / t**2 * (-t * error)  # the mean's weight of x_0, and x_0 = x_t - t v
    zero = Normal(torch.zeros(2).double(), math.sqrt(variance))
    expected = float(kl_divergence(zero, Normal(shift, math.sqrt(variance))).sum())
    assert found.divergence(step, float(error.square().sum())) == pytest.approx(expected, rel=1e-5)


def test_the_last_step_has_no_term():
    found = marginals_of(preserving(), STEPS)
    assert isinstance(found, Marginals)
    assert found.divergence(3, 1.0) is None


@pytest.mark.parametrize(
    ("scheduler", "steps", "words"),
    [
        (SimpleNamespace(config=SimpleNamespace()), STEPS, "tell its noise levels"),
        (preserving("flow"), STEPS, "predicts `flow`"),
        (preserving(), (90.5, 3.0), "no whole numbers"),
        (preserving(), (900.0, 3.0), "not those of"),
        (preserving(), (90.0, 90.0), "several steps at one timestep"),
        (FlowMatchTested(), (900.0, 400.0, 200.0), "did not take the steps"),
    ],
)
def test_levels_that_are_not_known_are_said_so(scheduler, steps, words):
    found = marginals_of(scheduler, steps)
    assert isinstance(found, Unknown)
    assert words in found.why
