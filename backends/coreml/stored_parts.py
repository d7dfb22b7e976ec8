"""What `weight.bin` holds of an operation beside what the formats of weights make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.backends.stored_weights import part_sizes
from qdx.exporter.dtypes import bits
from qdx.exporter.formats.weight_format import PartSize
from qdx.exporter.plan.resolve.totals import branch_sizes

if TYPE_CHECKING:
    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = ["part_sizes_with_biases"]

_LINEAR: Final = "linear"


def part_sizes_with_biases(resolution: SiteResolution, *, float32: bool) -> dict[str, PartSize]:
    """The parts of a site's weight by suffix; none without a weight.

    The two products of a low-rank branch have no bias, for which the `linear` of MIL stores zeros.

    Args:
        resolution: What becomes of the site.
        float32: Whether floats of it are float32, whatever the component's are.
    """
    found = part_sizes(resolution, float32=float32)
    scheme, site = resolution.quantized_weights, resolution.site
    if scheme is None or scheme.low_rank is None or site.op != _LINEAR:
        return found
    each = bits(scheme.low_rank.dtype or "float32") // 8
    rank, outputs = scheme.low_rank.rank, site.weight_shape[0]
    biases = dict(zip(branch_sizes(resolution), (rank, outputs), strict=True))
    return found | {f"{part}_bias": PartSize(size, size * each) for part, size in biases.items()}
