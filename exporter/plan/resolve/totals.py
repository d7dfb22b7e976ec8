"""What a resolution amounts to: bytes of weights, bits of each, and arithmetic by precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import Any, Final

from qdx.exporter.dtypes import bits
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.weight_format import PartSize, StoredShape
from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution

__all__ = [
    "Totals",
    "branch_macs",
    "branch_sizes",
    "component_totals",
    "computed_floats",
    "precisions_of",
    "rotation_macs",
    "rotation_size",
    "totals_of",
    "weight_bytes",
]

_FLOAT32: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Totals:
    """Sums over some sites. A weight that several sites share counts once.

    Attributes:
        operations: Number of sites.
        quantized: Number of those whose weight or inputs are quantized, without refused ones.
        elements: Number of weight elements.
        weight_bytes: Their bytes in the artifact, with scales, zero points, tables, low-rank branches and the matrices of
            rotations.
        float32_bytes: Their bytes in float32.
        macs: Multiply-accumulates of one call of each graph, with those of low-rank branches and of rotations: as many as
            if no layer in front took one in.
        macs_by_precision: The same by `precisions_of`: where a scheme depends on the timestep, each counts by the
            share of the steps at which it holds.
        low_precision_share: Share of the multiply-accumulates of convolutions, linear operations and
            products of attention whose inputs and weights are quantized, from 0 to 1; by the share of the steps
            likewise.
    """

    operations: int
    quantized: int
    elements: int
    weight_bytes: int
    float32_bytes: int
    macs: int
    macs_by_precision: dict[str, int]
    low_precision_share: float

    @property
    def bits_per_weight(self) -> float:
        """Average bits of a weight element, scales and tables included; 0 without weights."""
        return 8 * self.weight_bytes / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """The sums as plain JSON data."""
        return {
            "operations": self.operations,
            "quantized": self.quantized,
            "elements": self.elements,
            "weight_bytes": self.weight_bytes,
            "float32_bytes": self.float32_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "macs": self.macs,
            "macs_by_precision": self.macs_by_precision,
            "low_precision_share": round(self.low_precision_share, 6),
        }


def component_totals(resolved: ResolvedPlan) -> dict[str, Totals]:
    """Returns the sums of each traced component, all its graphs together."""
    found: dict[str, list[SiteResolution]] = {}
    for where, sites in resolved.sites.items():
        found.setdefault(where.partition(".")[0], []).extend(sites)
    computes = computed_floats(resolved)
    return {component: totals_of(sites, computes) for component, sites in found.items()}


def computed_floats(resolved: ResolvedPlan) -> dict[str, str]:
    """Returns the type in which each component computes what is not quantized, by name."""
    # Mixed precision keeps products, which alone are counted, in that type.
    return {one.component: one.computes for one in resolved.components}


def totals_of(sites: Iterable[SiteResolution], computes: Mapping[str, str] = _FLOAT32) -> Totals:
    """Returns the sums over sites.

    Args:
        sites: What becomes of them.
        computes: Type in which each component computes floats; float32 for those that it does not name.
    """
    every = tuple(sites)
    weights: dict[tuple[str, str], SiteResolution] = {}
    precisions: dict[str, Fraction] = {}
    low = Fraction(0)
    beside = _floats_beside(every)
    for resolution in every:
        site = resolution.site
        if site.weight is not None:
            weights.setdefault((resolution.where, site.weight), resolution)
        if site.macs:
            for precision, share in precisions_of(
                resolution, computes.get(resolution.where.partition(".")[0], "float32")
            ).items():
                precisions[precision] = precisions.get(precision, Fraction(0)) + site.macs * share
            low += site.macs * _low_precision(resolution)
    for where, count in beside.items():
        floats = computes.get(where.partition(".")[0], "float32")
        precision = f"{floats} x {floats}"
        precisions[precision] = precisions.get(precision, Fraction(0)) + count
    elements = sum(resolution.site.weight_elements for resolution in weights.values())
    macs = sum(resolution.site.macs for resolution in every) + sum(beside.values())
    return Totals(
        operations=len(every),
        quantized=sum(
            bool(r.quantized_weights or r.segments) and r.form != "refused" for r in every
        ),
        elements=elements,
        weight_bytes=sum(map(weight_bytes, weights.values())) + _matrix_bytes(every),
        float32_bytes=4 * elements,
        macs=macs,
        macs_by_precision={name: round(part) for name, part in sorted(precisions.items())},
        low_precision_share=float(low / macs) if macs else 0.0,
    )


def _floats_beside(resolutions: Iterable[SiteResolution]) -> dict[str, int]:
    """Multiply-accumulates of what stands beside sites and in front of them, by graph."""
    found: dict[str, int] = {}
    rotated: set[tuple[str, str, str]] = set()
    for one in resolutions:
        count = branch_macs(one)
        matrix = rotation_size(one)
        # What reads the same and turns it alike has one product.
        product = (one.where, one.site.source or one.key, matrix[0] if matrix else "")
        if matrix is not None and product not in rotated:
            rotated.add(product)
            count += rotation_macs(one)
        if count:
            found[one.where] = found.get(one.where, 0) + count
    return found


def _matrix_bytes(resolutions: Iterable[SiteResolution]) -> int:
    """Bytes of the matrices of rotations, each once in a graph."""
    matrices = [(one.where, rotation_size(one)) for one in resolutions]
    return sum(size.size_bytes for _, (_, size) in {(w, m) for w, m in matrices if m is not None})


def precisions_of(resolution: SiteResolution, floats: str = "float32") -> dict[str, Fraction]:
    """Returns the types that meet in an operation, such as `int8 x int8` or `int4 x float32`, by the share of the steps.

    Args:
        resolution: What becomes of it.
        floats: The type of inputs that are not quantized.

    The first type is that of the weight, or `activations` where there is none; the second that of the inputs. Groups
    of timesteps are as equal in number of steps as they can be, and count as equal. What is refused is `refused`.
    """
    if resolution.form == "refused":
        return {"refused": Fraction(1)}
    weights = resolution.weights.dtype if resolution.weights is not None else "activations"
    found: dict[str, Fraction] = {}
    for inputs, share in _shares(resolution):
        name = f"{weights} x {inputs or floats}"
        found[name] = found.get(name, Fraction(0)) + share
    return found


def weight_bytes(resolution: SiteResolution) -> int:
    """Returns the bytes of a site's weight in the artifact, with scales, zero points, tables and branch; 0 without."""
    scheme, site = resolution.weights, resolution.site
    if scheme is None or site.weight is None:
        return 0
    dtype = resolution.stored_dtype or scheme.dtype
    stored = StoredShape(site.weight_shape, site.output_axis, dtype, resolution.scale_dtype)
    if not scheme.quantized:
        return stored.value_bytes(bits(dtype))
    branch = sum(part.size_bytes for part in branch_sizes(resolution).values())
    return format_of(scheme.dtype).size_bytes(scheme, stored) + branch


def branch_sizes(resolution: SiteResolution) -> dict[str, PartSize]:
    """Returns what a low-rank branch beside a site's weight stores, by the suffixes of its parameters; empty without one."""
    scheme, shape = resolution.quantized_weights, resolution.site.weight_shape
    if scheme is None or scheme.low_rank is None or not shape:
        return {}
    rank, each = scheme.low_rank.rank, bits(scheme.low_rank.dtype or "float32") // 8
    counts = {"down": rank * prod(shape[1:]), "up": rank * shape[0]}
    return {f"_low_rank_{part}": PartSize(count, count * each) for part, count in counts.items()}


def branch_macs(resolution: SiteResolution) -> int:
    """Returns the multiply-accumulates of a low-rank branch beside a site, in floats; 0 without one."""
    sizes = branch_sizes(resolution)
    elements = resolution.site.weight_elements
    beside = sum(part.elements for part in sizes.values())
    return resolution.site.macs * beside // elements if sizes else 0


def rotation_size(resolution: SiteResolution) -> tuple[str, PartSize] | None:
    """Returns name and size of the matrix that rotates what a site reads; None without one.

    Operations of a kind in a graph share it. Where the layer in front takes the rotation in, nothing is stored.
    """
    scheme = resolution.quantized_weights
    if scheme is None or scheme.rotate is None or scheme.rotate.block is None:
        return None
    count = scheme.rotate.block**2
    size_bytes = count * bits(resolution.float_dtype) // 8
    return scheme.rotate.matrix_name(resolution.site.op), PartSize(count, size_bytes)


def rotation_macs(resolution: SiteResolution) -> int:
    """Returns the multiply-accumulates of the product that rotates what a site reads, in floats; 0 without one."""
    if rotation_size(resolution) is None:
        return 0
    scheme = resolution.quantized_weights
    assert scheme is not None
    assert scheme.rotate is not None
    return resolution.site.input_elements * (scheme.rotate.block or 0)


def _shares(resolution: SiteResolution) -> list[tuple[str, Fraction]]:
    """The types of the inputs, each with the share of the steps at which it holds; empty for floats."""
    segments = resolution.segments
    if not segments:
        return [("", Fraction(1))]
    counts = [1 if groups is None else len(groups) for groups, _ in segments]
    return [
        (inputs.dtype if inputs.quantized else "", Fraction(count, sum(counts)))
        for count, (_, inputs) in zip(counts, segments, strict=True)
    ]


def _low_precision(resolution: SiteResolution) -> Fraction:
    """The share of the steps at which everything that an operation multiplies is quantized."""
    weights = resolution.weights
    if resolution.form == "refused" or (weights is not None and not weights.quantized):
        return Fraction(0)
    return sum((share for inputs, share in _shares(resolution) if inputs), Fraction(0))
