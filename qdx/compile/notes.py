"""What an export tells beside its result: things that are right, and that users do not expect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.targets.profile import TargetProfile

__all__ = ["build_notes", "float_notes", "option_notes", "size_notes", "table_notes", "unit_notes"]

_SIZES: Final = ("height", "width", "num_frames", "max_sequence_length")


def size_notes(ranges: Ranges | None, call: Mapping[str, Any]) -> tuple[str, ...]:
    """Says so where ranges were recorded at another size than that of the call.

    Args:
        ranges: What the activations are quantized by; None where nothing is.
        call: Of the export.
    """
    if ranges is None:
        return ()
    recorded = ranges.provenance.call
    differing = [name for name in _SIZES if recorded.get(name) != call.get(name)]
    if not differing:
        return ()
    there, here = (
        ", ".join(f"`{name}` {_size(one.get(name))}" for name in differing)
        for one in (recorded, call)
    )
    note = (
        f"ranges were recorded at {there}, and the call has {here}: activations of other sizes can leave them; "
        "`qdx verify` tells what that costs"
    )
    return (note,)


def _size(value: object) -> str:
    return "of the pipeline's own" if value is None else str(value)


def build_notes(profile: TargetProfile) -> tuple[str, ...]:
    """Says so where a bundle is finished on another machine."""
    if profile.runtime != "tensorrt":
        return ()
    note = (
        "`qdx build` finishes the bundle on the machine with the GPU; without engines, ONNX Runtime computes what "
        "its files say"
    )
    return (note,)


def unit_notes(
    resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
) -> tuple[str, ...]:
    """Says so where a component, or much of it, can never run on the Neural Engine, on a target that has one.

    Args:
        resolved: What becomes of the plan.
        profile: The target.
        exported: Names of the components that are exported.
    """
    if profile.runtime != "coreml" or profile.device == "CPU_AND_GPU":
        return ()
    whole = [name for name in exported if resolved.storage_dtype(name) == "float32"]
    mixed = [name for name in exported if name not in whole]
    notes = []
    if whole:
        notes.append(
            f"{_names(whole)}: float32 never runs on the Neural Engine; plans that store float16 do: `float16`, "
            "`palette6`, `w8`"
        )
    if mixed and resolved.mixed_precision:
        notes.append(
            f"{_names(mixed)}: in mixed precision, what is between products never runs on the Neural Engine; it is for "
            "the GPU"
        )
    return (*notes,)


def option_notes(
    resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
) -> tuple[str, ...]:
    """Says so where mixed precision changes nothing of what is exported."""
    computed = {r.component: r.computes for r in resolved.components}
    if not resolved.plan.options.mixed_precision or any(
        computed[name] != "float32" for name in exported
    ):
        return ()
    reason = (
        f"`{profile.name}` computes floats in float32, whatever they are stored in"
        if profile.compute_dtype == "float32"
        else "nothing that is exported is stored in sixteen bits"
    )
    return (f"`mixed_precision` changes nothing: {reason}",)


def _names(components: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in components)


def float_notes(resolved: ResolvedPlan) -> tuple[str, ...]:
    """Says so where a plan that quantizes reaches nothing that is exported."""
    asked = resolved.plan.quantizer == "qdx" and resolved.plan.quantizes
    if not asked or any(resolved.quantized(where) for where in resolved.sites):
        return ()
    note = (
        "the plan quantizes nothing of what is exported: the artifact computes in float, and gates for "
        "quantized artifacts cannot pass; see --components and the plan's rules"
    )
    return (note,)


def table_notes(entries: Mapping[str, Any]) -> tuple[str, ...]:
    """What other readers of an artifact must know of its time embedding.

    Args:
        entries: The manifest's `components`.
    """
    return tuple(
        f"`{name}.{method}.{port['argument']}` takes the {len(port['values'])} timesteps of this "
        "schedule alone; readers other than qdx get the nearest one's answer for others"
        for name, component in entries.items()
        for method, entry in component["methods"].items()
        for port in entry["inputs"]
        if "values" in port
    )
