"""What users do not expect of a package that is right: on which units it can never run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.targets.profile import TargetProfile

__all__ = ["unit_notes"]

_WITHOUT_NEURAL_ENGINE: Final = "CPU_AND_GPU"


def unit_notes(
    resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
) -> tuple[str, ...]:
    """Says so where a component, or much of it, can never run on the Neural Engine, on a target that has one.

    Args:
        resolved: What becomes of the plan.
        profile: The target.
        exported: Names of the components that are exported.
    """
    if profile.device == _WITHOUT_NEURAL_ENGINE:
        return ()
    whole = [name for name in exported if resolved.storage_dtype(name) == "float32"]
    asked = {one.component for one in resolved.components if one.asked == "float32"}
    mixed = [name for name in exported if name not in whole]
    notes = []
    if whole:
        plans = "; plans that store float16 do: `float16`, `palette6`, `w8`"
        way_out = plans if asked.issuperset(whole) else ""
        notes.append(f"{_names(whole)}: float32 never runs on the Neural Engine{way_out}")
    if mixed and resolved.mixed_precision:
        notes.append(
            f"{_names(mixed)}: in mixed precision, what is between products never runs on the Neural Engine; it is for "
            "the GPU"
        )
    return (*notes,)


def _names(components: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in components)
