"""What a plan says once for the whole pipeline: options, calibration, and NNCF's own settings."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from qdx.exporter.plan.schema.model import PlanModel, Ratio

__all__ = ["CALIBRATION_STEPS_MOST", "Calibration", "Nncf", "Options", "Smoothing"]

CALIBRATION_STEPS_MOST: Final = 25
"""Denoising steps of a calibration that says none: longer schedules come to the same ranges at other timesteps."""

_SIZES: Final = frozenset({"height", "width", "num_frames"})


class Smoothing(PlanModel):
    """Moves the spread of activations into weights: x / s and W * s for each input channel.

    Attributes:
        alpha: Share that is moved: s = max|x|^alpha / max|W|^(1 - alpha) (Xiao et al. 2023,
            SmoothQuant, equation 4).
    """

    alpha: Ratio


class Options(PlanModel):
    """Changes of the graph beside quantization.

    Attributes:
        time_embedding: `compute` runs the layers that depend on the timestep alone; `precompute`
            replaces them by a table of the schedule's timesteps.
        bias_correction: Add the mean error of each quantized operation's output to its bias.
        mixed_precision: Of what is stored in sixteen bits, compute only products (convolutions, linear operations,
            attention) in that type; in float32 everything between, and shortcuts of residual blocks that are not
            quantized. None leaves it to the target.
        smoothing: Move the spread of activations into weights; None does not.
    """

    time_embedding: Literal["compute", "precompute"] = "compute"
    bias_correction: bool = False
    mixed_precision: bool | None = None
    smoothing: Smoothing | None = None

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the options that are not as without a plan's saying."""
        fields = type(self).model_fields
        return tuple(name for name in fields if getattr(self, name) != fields[name].default)


class Calibration(PlanModel):
    """The pipeline calls from which static ranges are taken.

    Attributes:
        samples: Number of pipeline calls, each with a prompt and a seed of its own.
        steps: Denoising steps of each; None takes what the exported call has, up to 25, or up to the number of
            `timestep_groups` where that is larger.
        timestep_groups: Number of equal parts of the schedule for which statistics are kept apart.
        observed: Share of the steps that are observed, above 0 to 1; the others only lead from one to the next.
            Every step is observed in one sample at least.
        branches: Which halves of classifier-free guidance count.
        seed: Seed of the first call; the next ones follow.
        call: Arguments of the pipeline call in which calibration differs from the export, such as a smaller
            `height`; None for none.
    """

    samples: Annotated[int, Field(ge=1, le=4096)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    timestep_groups: Annotated[int, Field(ge=1, le=100)] = 10
    observed: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    branches: Literal["both", "conditional", "unconditional"] = "both"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    call: dict[str, int | float | str] | None = None

    @field_validator("call")
    @classmethod
    def _check_call(
        cls, call: dict[str, int | float | str] | None
    ) -> dict[str, int | float | str] | None:
        if call is None:
            return None
        from qdx.exporter.capture.media import is_media_name

        if images := sorted(filter(is_media_name, call)):
            raise ValueError(
                f"`{images[0]}` is an image, and a plan opens no files; give it with --call"
            )
        for name in sorted(call.keys() & _SIZES):
            size = call[name]
            if not isinstance(size, int) or size < 1:  # pipelines take 0 for their own size
                raise ValueError(f"`{name}` is {size!r}, expected a whole number from 1 on")
        return call


class Nncf(PlanModel):
    """Settings of NNCF, for quantizer `nncf`.

    Attributes:
        mode: `ptq` quantizes weights and activations; `hybrid` quantizes convolutions so and stores
            the weights of linear operations in low precision; `weights` does the latter to all.
        components: Glob of the components that NNCF quantizes; the others have what the rules say.
        preset: `performance` quantizes activations symmetrically, `mixed` asymmetrically.
        model_type: `transformer` keeps the patterns of transformers; None does not.
        smooth_quant_alpha: Share of the spread that moves into weights; -1 turns it off; None takes
            NNCF's default.
        fast_bias_correction: Correct biases from few samples layer by layer.
        weights: Stored type of compressed weights.
        group_size: Elements that share a scale in 4-bit modes; -1 for an output channel.
        ratio: Share of the weights in 4-bit modes that take 4 bits; the others take 8.
    """

    mode: Literal["ptq", "hybrid", "weights"]
    components: Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?]+$", max_length=128)] = "*"
    preset: Literal["performance", "mixed"] = "performance"
    model_type: Literal["transformer"] | None = None
    smooth_quant_alpha: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    fast_bias_correction: bool = True
    weights: Literal["int8_asym", "int8_sym", "int4_sym", "int4_asym"] = "int8_asym"
    group_size: Literal[-1, 16, 32, 64, 128, 256] = 128
    ratio: Ratio = 1.0
