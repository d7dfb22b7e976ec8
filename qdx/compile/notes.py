"""What an export tells beside its result: things that are right, and that users do not expect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from qdx.exporter.capture.media import call_parameters
from qdx.exporter.plan.schema.scheme import FLOAT

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = [
    "float_notes",
    "large_notes",
    "option_notes",
    "size_notes",
    "table_notes",
    "upcast_notes",
    "usual_notes",
]

_SIZES: Final = ("height", "width", "num_frames", "max_sequence_length")
_USUAL: Final = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale")
"""What decides shapes, time and guidance of what is generated."""


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
        "`qdx verify` measures what that costs"
    )
    return (note,)


def _size(value: object) -> str:
    return "of the pipeline's own" if value is None else str(value)


def usual_notes(source: TracedPipeline) -> tuple[str, ...]:
    """Says which numbers are the pipeline's own, since the call leaves them out."""
    parameters = call_parameters(source.skeleton.pipeline)
    usual = {
        name: parameters[name].default
        for name in _USUAL
        if name in parameters and source.call.get(name) is None
    }
    size = source.captured.size_pixels
    if size is not None:
        usual |= {n: one for n, one in zip(_SIZES[:2], size, strict=True) if n in usual}
    words = [f"`{name}` {value:g}" for name, value in usual.items() if _is_number(value)]
    if not words:
        return ()
    return (f"the call leaves these to the pipeline: {', '.join(words)}; --call decides otherwise",)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def float_notes(resolved: ResolvedPlan) -> tuple[str, ...]:
    """Says so where a plan that quantizes reaches nothing that is exported."""
    asked = resolved.plan.quantizes and not resolved.plan.quantizes_artifacts
    if not asked or any(resolved.quantized(where) for where in resolved.sites):
        return ()
    note = (
        "the plan quantizes nothing of what is exported: the artifact computes in float, and gates for "
        "quantized artifacts cannot pass; see --components and the plan's rules"
    )
    return (note,)


def upcast_notes(
    resolved: ResolvedPlan,
    profile: TargetProfile,
    upcast: Collection[str],
    exported: Collection[str],
) -> tuple[str, ...]:
    """Tells what became of components whose configuration says that float16 overflows in them.

    Args:
        resolved: What the plan became.
        profile: The target.
        upcast: Names of such components.
        exported: Names of the components in the bundle.
    """
    notes = []
    for one in resolved.components:
        if one.component not in upcast or one.component not in exported:
            continue
        asked = profile.choices.float_dtype.value if one.asked == FLOAT else one.asked
        if one.becomes != asked:
            notes.append(f"`{one.component}`: {one.why}")
        elif one.computes == "float16":
            notes.append(
                f"`{one.component}`: in float16 as the plan asks, though its configuration has `force_upcast`: it may "
                "overflow, which `qdx verify` tells"
            )
    return tuple(notes)


def large_notes(where: str, large: Mapping[tuple[str, str], float]) -> tuple[str, ...]:
    """Tells what of a graph in float16 is computed in float32, because calibration saw values beyond it.

    Args:
        where: `component.method` of the graph.
        large: Their largest magnitudes, by the key of the site and the name of its port.
    """
    if not large:
        return ()
    (key, port), most = max(large.items(), key=lambda item: item[1])
    operations = len({site for site, _ in large})
    note = (
        f"`{where}`: float32 instead of float16 at {operations} operation{'s'[: operations > 1]} and what reads their "
        f"values: the {port} of `{key}` reaches {most:.4g} in calibration, and float16 ends at 65504"
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
