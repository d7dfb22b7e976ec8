"""Timesteps that are no whole numbers, on targets whose ecosystem declares whole ones."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from qdx.targets.profile import PortChange

if TYPE_CHECKING:
    from qdx.exporter.capture.capture import Capture
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.targets.profile import TargetProfile

_USUAL_STEPS = (
    7  # does not divide a schedule of 1,000, so that a spacing by division shows its fractions
)


def with_exact_timesteps(
    profile: TargetProfile, skeleton: Skeleton, captured: Capture
) -> tuple[TargetProfile, tuple[str, ...]]:
    """The profile under which the pipeline's own schedule reaches the artifact unrounded.

    Rounding a timestep changes the picture without a word, so float32 is declared where the scheduler has
    fractions and the layout asks for integers. Readers that insist on integers are named in a note.

    Returns:
        The profile, and notes for the user.
    """
    if not _fractional(skeleton):
        return profile, ()
    changes: dict[str, PortChange] = {}
    for record in captured.calls.values():
        for name, tensor in record.tensors().items():
            port = profile.layout.input(record.component, record.method, name, "float32")
            if name == "timestep" and tensor.is_floating_point() and port.dtype == "int64":
                changes[f"{record.where}.{name}"] = PortChange(dtype="float32", rank=port.rank)
    if not changes:
        return profile, ()
    layout = profile.layout.model_copy(update={"inputs": {**changes, **profile.layout.inputs}})
    readers = profile.layout.exact_readers
    such = f", such as {', '.join(readers)}," if readers else ""
    notes = tuple(
        f"`{key}` is float32, because the scheduler's timesteps have fractions; "
        f"readers that insist on int64{such} do not take it"
        for key in changes
    )
    return profile.model_copy(update={"layout": layout}), notes


def _fractional(skeleton: Skeleton) -> bool:
    """Whether the scheduler's timesteps have fractions."""
    scheduler = copy.deepcopy(getattr(skeleton.pipeline, "scheduler", None))
    if scheduler is None or not hasattr(scheduler, "set_timesteps"):
        return False
    try:
        scheduler.set_timesteps(_USUAL_STEPS)
    except (TypeError, ValueError):  # schedulers that want more than a number of steps
        return False
    timesteps = scheduler.timesteps
    return bool((timesteps != timesteps.round()).any())
