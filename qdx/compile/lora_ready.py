"""Which artifacts take low-rank adapters (LoRA) at run time, and what an export cannot have together with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.lora_scale import scale_argument
from qdx.exporter.errors import Refusal, TargetRefusal, UsageError, quoted
from qdx.exporter.limits import LORA_RANK_LIMIT

if TYPE_CHECKING:
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.source.pipeline import TracedPipeline

__all__ = ["LoraReady", "check_lora_ready", "lora_ready_components"]


@dataclass(frozen=True)
class LoraReady:
    """What takes adapters at run time.

    Attributes:
        rank: Of all adapters of a layer together, at most.
        components: Names of the components.
    """

    rank: int
    components: frozenset[str]


def check_lora_ready(rank: int | None, plan: Plan, layout: str | None) -> None:
    """Refuses what cannot be had with adapters at run time, before anything is read.

    Args:
        rank: That was asked for; None for no adapters.
        plan: The plan.
        layout: The layout of an application that was asked for.

    Raises:
        UsageError: The rank is none, or the layout has no such inputs.
        TargetRefusal: The plan changes what layers are given, or another quantizer than the plan's rules takes the artifact.
    """
    if rank is None:
        return
    if not 1 <= rank <= LORA_RANK_LIMIT:
        raise UsageError(
            f"--lora-ready: {rank} is no rank, expected 1 to {LORA_RANK_LIMIT}",
            hint="give the largest sum of ranks of the adapters that are to be active together, such as 16",
        )
    if layout is not None:
        raise UsageError(
            f"--lora-ready: the application of --layout {quoted(layout)} gives its packages no adapters",
            hint="leave one of the two out; `--lora FILE` merges a LoRA",
        )
    if plan.options.smoothing is not None:
        raise _refusal(
            "the plan's `smoothing` divides what layers are given, and adapters are made for what it was before"
        )
    if any(rule.weights is not None and rule.weights.rotate is not None for rule in plan.rules):
        raise _refusal(
            "the plan's `rotate` turns what layers are given, and adapters are made for what it was before"
        )
    if plan.quantizes_artifacts:
        raise _refusal(f"quantizer `{plan.quantizer}` calibrates artifacts without such inputs")


def lora_ready_components(rank: int | None, source: TracedPipeline) -> LoraReady | None:
    """The components whose artifacts take adapters: those that denoise, where diffusers loads adapters into them.

    Args:
        rank: Checked before; None for no adapters.
        source: The pipeline.

    Raises:
        UsageError: There is none, or the call scales adapters, which a call of the opened bundle does.
    """
    if rank is None:
        return None
    pipeline: Any = source.skeleton.pipeline
    name = source.folder.pipeline_class
    loadable = getattr(pipeline, "_lora_loadable_modules", ())
    if not hasattr(pipeline, "lora_state_dict") or not loadable:
        raise UsageError(f"--lora-ready: diffusers loads no LoRA into {name}", hint="leave it out")
    exported = {record.component for record in source.chosen.values()}
    kinds = source.captured.kinds
    found = frozenset(c for c in exported if kinds.get(c) == "denoiser" and c in loadable)
    if not found:
        raise UsageError(
            f"--lora-ready: the export has no component of {name} that denoises and takes adapters, which can be "
            f"{', '.join(loadable)}",
            hint="export the denoiser too, or leave the option out",
        )
    for where, record in source.chosen.items():
        argument = scale_argument(record.arguments)
        if record.component in found and argument is not None:
            raise UsageError(
                f"--lora-ready: the call's `{argument}` has a `scale` of adapters for `{where}`",
                hint="leave it out of --call: calls of the opened pipeline give it",
            )
    return LoraReady(rank, found)


def _refusal(reason: str) -> TargetRefusal:
    return TargetRefusal(
        f"--lora-ready: {reason}",
        refusals=(Refusal("lora", reason),),
        hint="choose another plan, such as float32 or w8; `--lora FILE` merges a LoRA under every plan",
    )
