"""What of an operation a runtime's files hold: the parts of its weight, as the format makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.exporter.cost.weight_file import StoredTensor
from qdx.exporter.dtypes import bits
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.weight_format import PartSize, StoredShape
from qdx.exporter.plan.resolve.totals import branch_sizes, rotation_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = ["part_sizes", "stored_tensors"]

_FLOAT32: Final = "float32"
_HALVES: Final = ("float16", "bfloat16")


def part_sizes(resolution: SiteResolution, *, float32: bool = False) -> dict[str, PartSize]:
    """The parts of a site's weight by suffix; none without a weight.

    Args:
        resolution: What becomes of the site.
        float32: Whether floats of it are float32, whatever the component's are.
    """
    scheme, site = resolution.weights, resolution.site
    if scheme is None or site.weight is None:
        return {}
    dtype, scales = resolution.stored_dtype or scheme.dtype, resolution.scale_dtype
    if float32:
        dtype, scales = dtype if scheme.quantized else _FLOAT32, _FLOAT32
        if scheme.lut_dtype in _HALVES:
            scheme = scheme.model_copy(update={"lut_dtype": _FLOAT32})
    stored = StoredShape(site.weight_shape, site.output_axis, dtype, scales)
    if not scheme.quantized:
        return {"": PartSize(site.weight_elements, stored.value_bytes(bits(dtype)))}
    branch = branch_sizes(resolution)
    return {**format_of(scheme.dtype).part_sizes(scheme, stored), **branch}


def stored_tensors(
    resolution: SiteResolution, parts: Mapping[str, PartSize]
) -> tuple[StoredTensor, ...]:
    """Parts of a site's weight as tensors under its name, and what rotates its inputs, which other sites have too."""
    name = resolution.site.weight or ""
    found = [StoredTensor(name + suffix, *part) for suffix, part in parts.items()]
    if (rotation := rotation_size(resolution)) is not None:
        found.append(StoredTensor(rotation[0], *rotation[1]))
    return tuple(found)
