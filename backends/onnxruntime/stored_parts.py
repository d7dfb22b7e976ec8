"""What 8-bit kernels of ONNX Runtime want stored beside a weight. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.backends.stored_weights import part_sizes
from qdx.exporter.formats.weight_format import PartSize
from qdx.exporter.plan.schema.scheme import Inputs

if TYPE_CHECKING:
    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = ["part_sizes_beside"]

_SCALE_BYTES: Final = 4
_SIZE_BYTES: Final = 8
"""Of one dimension in a shape."""


def part_sizes_beside(resolution: SiteResolution, bias_elements: int) -> dict[str, PartSize]:
    """The parts of a site's weight with what the lowering adds.

    Convolutions of float inputs are decompressed by arithmetic, for which what goes along the channels has a shape beside,
    see `stored_weights`. Where inputs are quantized, zero points are written even where they are zero, see `quantizers`; the bias becomes whole numbers, whose scales are
    new, see `biases`. A scale that depends on the timestep or the token is taken back before the bias is added, which
    then stays float.
    """
    parts = part_sizes(resolution)
    scale, inputs = parts.get(".scale"), resolution.inputs
    if scale is None:
        return parts
    scales = scale.elements
    if not any(one.quantized for _, one in resolution.segments):
        if resolution.site.op.startswith("conv") and scales > 1:
            rank = len(resolution.site.weight_shape)
            for suffix in {".scale", ".zero_point"} & parts.keys():
                parts[f"{suffix}.shape"] = PartSize(rank, _SIZE_BYTES * rank)
        return parts
    parts.setdefault(".zero_point", PartSize(scales, scales))
    if bias_elements and isinstance(inputs, Inputs) and inputs.mode != "dynamic":
        parts[".bias_scale"] = PartSize(bias_elements, _SCALE_BYTES * bias_elements)
    return parts
