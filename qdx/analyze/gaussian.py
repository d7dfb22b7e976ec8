"""What an error of the prediction costs in the Gaussian terms of the variational bound.

With marginals q(x_t|x_0) = N(a_t x_0, b_t² I) and signal-to-noise SNR(t) = a_t²/b_t², the posterior q(x_s|x_t, x_0) of the
next step s is a Gaussian whose mean is linear in x_0, and whose variance is that of the posterior of DDPM on the steps that
are taken: b²_{t|s} b_s²/b_t² with b²_{t|s} = b_t² - (a_t/a_s)² b_s². A model that is wrong about x_0 by d has

    KL = ‖mean_q - mean‖² / (2 variance) = 1/2 (SNR(s) - SNR(t)) ‖d‖²

(Kingma et al., "Variational diffusion models", 2021, equation 13 and appendix A). A deterministic sampler draws nothing; the
terms are then those of the sampler with this variance on the same steps. The last step, which ends without noise, has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["Marginals", "Unknown", "marginals_of"]

_WHOLE: Final = 1e-6


@dataclass(frozen=True)
class Unknown:
    """Why the terms of a scheduler are not known."""

    why: str


@dataclass(frozen=True)
class Marginals:
    """The noise levels of a run's steps, and what the model predicts.

    Attributes:
        a: Scale of the data at each step.
        b: Standard deviation of the noise at each step.
        of_prediction: What the clean latents change by, for a change of one of the prediction, at each step.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    of_prediction: tuple[float, ...]

    def divergence(self, step: int, squared_error: float) -> float | None:
        """The term of a step, in nats; None of the last.

        Args:
            step: From 0.
            squared_error: ‖error of the prediction‖², guidance included.
        """
        if step + 1 >= len(self.a):
            return None
        now, then = (self._snr(one) for one in (step, step + 1))
        clean = self.of_prediction[step] ** 2 * squared_error
        found = 0.5 * (then - now) * clean
        return found if math.isfinite(found) and found >= 0 else None

    def _snr(self, step: int) -> float:
        return (self.a[step] / self.b[step]) ** 2 if self.b[step] > 0 else math.inf


def marginals_of(scheduler: Any, timesteps: Sequence[float]) -> Marginals | Unknown:
    """Reads the noise levels of a run from its scheduler.

    Args:
        scheduler: Of diffusers, after the run.
        timesteps: Those of its steps, in order.

    Returns:
        The levels; or why they are not known.
    """
    name = type(scheduler).__name__
    table = getattr(scheduler, "alphas_cumprod", None)
    kind = getattr(scheduler.config, "prediction_type", None)
    if isinstance(table, torch.Tensor):
        return _variance_preserving(name, table, kind, timesteps)
    sigmas = getattr(scheduler, "sigmas", None)
    if "FlowMatch" in name and isinstance(sigmas, torch.Tensor):
        return _flow(name, scheduler, sigmas, timesteps)
    return Unknown(
        f"{name}: neither `alphas_cumprod` nor the sigmas of a flow tell its noise levels"
    )


def _variance_preserving(
    name: str, table: torch.Tensor, kind: str | None, timesteps: Sequence[float]
) -> Marginals | Unknown:
    places = [round(one) for one in timesteps]
    if any(abs(one - place) > _WHOLE for one, place in zip(timesteps, places, strict=True)):
        return Unknown(f"{name}: its timesteps are no whole numbers")
    if not all(0 <= place < len(table) for place in places):
        return Unknown(f"{name}: its timesteps are not those of `alphas_cumprod`")
    if len(set(places)) != len(places):
        return Unknown(f"{name}: it takes several steps at one timestep")
    levels = [float(table[place]) for place in places]
    a, b = (tuple(map(math.sqrt, one)) for one in (levels, [1 - level for level in levels]))
    changes = {
        "epsilon": tuple(-noise / scale for scale, noise in zip(a, b, strict=True)),
        "v_prediction": tuple(-noise for noise in b),
        "sample": (1.0,) * len(a),
    }
    if kind not in changes:
        return Unknown(f"{name}: predicts `{kind}`")
    return Marginals(a, b, changes[kind])


def _flow(
    name: str, scheduler: Any, sigmas: torch.Tensor, timesteps: Sequence[float]
) -> Marginals | Unknown:
    """x_t = (1 - sigma) x_0 + sigma n, and the model predicts n - x_0."""
    known = [float(one) for one in scheduler.timesteps]
    if known != [float(one) for one in timesteps] or len(sigmas) < len(known):
        return Unknown(f"{name}: the run did not take the steps of its `sigmas`")
    b = tuple(float(one) for one in sigmas[: len(known)])
    return Marginals(tuple(1 - one for one in b), b, tuple(-one for one in b))
