"""Runs at other sizes than the user's: on what dimensions of a dynamic graph must not depend.

A model may compute otherwise where a size does not divide: a U-Net whose latents are no multiple of its downsamplings
passes sizes on to its upsamplers. A graph traced at sizes that divide has lost that branch, so the run that decides a
trace takes odd multiples of the smallest unit of pixels that the pipeline takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.longer_prompts import longer_prompts, takes_longer_prompts
from qdx.exporter.capture.trace import Moving
from qdx.exporter.capture.values_read import ValuesRead
from qdx.exporter.capture.variants import calls_by_variant, representative
from qdx.exporter.errors import InvalidModel, UsageError

if TYPE_CHECKING:
    from qdx.exporter.capture.skeleton import Skeleton

__all__ = [
    "UNITS",
    "OtherRun",
    "has_scale",
    "on_grid",
    "open_calls",
    "picture_size",
    "run_off_grid",
    "run_on_grid",
    "scale_of",
]

UNITS: Final = (1, 2, 4, 8)
"""Of the autoencoder's scale; models of up to three downsamplings, or of as large patches."""


@dataclass(frozen=True)
class OtherRun:
    """A run at another size.

    Attributes:
        unit_pixels: Its height and width are odd multiples of it.
        calls: One record per component and method.
        moving: Per `component.method`, the dimensions that differ from the user's call.
    """

    unit_pixels: int
    calls: Mapping[str, CallRecord]
    moving: Mapping[str, Moving]


def run_off_grid(
    skeleton: Skeleton,
    call: dict[str, Any],
    usual: Sequence[CallRecord],
    size_pixels: tuple[int, int] | None,
    unit: int,
    *,
    longer: bool = False,
) -> OtherRun | None:
    """Runs the pipeline dry at odd multiples of a unit of pixels; None where it does not take them as they are.

    Args:
        skeleton: The pipeline.
        call: The user's call, with what stands in.
        usual: The records of that call, in order.
        size_pixels: Height and width of what it makes; None where it makes no picture.
        unit: One of `UNITS`.
        longer: Whether prompts come as embeddings of twice as many tokens.
    """
    if size_pixels is None:
        return None
    pixels = unit * scale_of(skeleton.pipeline)
    height, width = (
        _odd_multiple(2 * size_pixels[0], pixels),
        _odd_multiple(3 * size_pixels[1], pixels),
    )
    if height == width:
        width += 2 * pixels
    if not longer:
        return _run_at(skeleton, call, usual, size_pixels, (height, width), pixels)
    if not takes_longer_prompts(skeleton.pipeline):
        return None
    with longer_prompts(skeleton.pipeline):
        return _run_at(skeleton, call, usual, size_pixels, (height, width), pixels)


def run_on_grid(
    skeleton: Skeleton,
    call: dict[str, Any],
    usual: Sequence[CallRecord],
    size_pixels: tuple[int, int] | None,
) -> OtherRun | None:
    """Runs the pipeline dry at a size that every usual number of downsamplings divides; as `run_off_grid`."""
    if size_pixels is None:
        return None
    scale = scale_of(skeleton.pipeline)
    return _run_at(
        skeleton, call, usual, size_pixels, on_grid(size_pixels, scale), UNITS[-1] * scale
    )


def _run_at(
    skeleton: Skeleton,
    call: dict[str, Any],
    usual: Sequence[CallRecord],
    size_pixels: tuple[int, int],
    other_pixels: tuple[int, int],
    unit_pixels: int,
) -> OtherRun | None:
    first = complete_call(skeleton.pipeline, call)
    other = other_call(skeleton.pipeline, first, size_pixels, other_pixels=other_pixels)
    values = ValuesRead(skeleton)
    try:
        records = dry_run(skeleton, other, values)
    except (UsageError, InvalidModel):
        return None  # in diffusers, too, the pipeline does not take this size
    finally:
        values.restore()
    if picture_size(skeleton, records) != other_pixels:
        return None  # it rounds sizes
    groups = calls_by_variant([*usual, *records], by_shape=False)
    return OtherRun(unit_pixels, *open_calls(groups))


def _odd_multiple(least: int, unit: int) -> int:
    count = -(-least // unit)
    return (count | 1) * unit


def open_calls(
    groups: Mapping[str, tuple[CallRecord, ...]],
) -> tuple[dict[str, CallRecord], dict[str, Moving]]:
    """One record of each graph, and its dimensions that move.

    Args:
        groups: The calls of each graph, by `component.method`.
    """
    moving = {where: found for where, group in groups.items() if (found := _moving(group))}
    calls = {
        where: _largest(group) if where in moving else representative(group)
        for where, group in groups.items()
    }
    return calls, moving


def _moving(group: tuple[CallRecord, ...]) -> Moving:
    """Dimensions whose size differs between the records of one graph."""
    first, *others = (record.tensors() for record in group)
    found = {
        name: tuple(
            d
            for d, size in enumerate(tensor.shape)
            if any(name in o and o[name].shape[d : d + 1] != (size,) for o in others)
        )
        for name, tensor in first.items()
    }
    return {name: dims for name, dims in found.items() if dims}


def _largest(group: tuple[CallRecord, ...]) -> CallRecord:
    """The representative with the sizes of the call that has most elements: of open dimensions none may be 1."""
    chosen = max(group, key=lambda one: sum(t.numel() for t in one.tensors().values()))
    return representative((chosen, *(record for record in group if record is not chosen)))


def on_grid(size_pixels: tuple[int, int], scale: int) -> tuple[int, int]:
    """Another height and width, which every usual number of downsamplings divides.

    They are about twice and three times as many pixels, so that no dimension equals another by chance.
    """
    unit = UNITS[-1] * scale
    height, width = (-(-size // unit) * unit for size in (2 * size_pixels[0], 3 * size_pixels[1]))
    return (height, width) if height != width else (height, width + unit)


def has_scale(pipeline: Any) -> bool:
    """Whether a pipeline tells how many pixels there are to a latent."""
    return any(
        hasattr(pipeline, one) for one in ("vae_spatial_compression_ratio", "vae_scale_factor")
    )


def scale_of(pipeline: Any) -> int:
    """Pixels to a latent, in height and width."""
    return int(
        getattr(pipeline, "vae_spatial_compression_ratio", 0)
        or getattr(pipeline, "vae_scale_factor", 1)
        or 1
    )


def picture_size(skeleton: Skeleton, records: list[CallRecord]) -> tuple[int, int] | None:
    """Height and width of the picture, from the latents that the last decoder call took (or the denoiser's sample)."""
    scale = scale_of(skeleton.pipeline)
    for record in reversed(records):
        for tensor in record.tensors().values():
            if tensor.dim() >= 4:
                height, width = tensor.shape[-2:]
                return (
                    (height * scale, width * scale)
                    if record.method == "decode"
                    else (height, width)
                )
    return None
