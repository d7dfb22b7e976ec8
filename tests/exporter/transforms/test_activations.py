"""From wishes and ranges to the numbers of quantizers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qdx.exporter.plan.schema.scheme import Inputs
from qdx.exporter.transforms.activations import activation_quantization
from qdx.exporter.transforms.placement import ActivationQuantization


class Ranges:
    """A range for each recorded group; all groups together reach the widest."""

    def __init__(self, *ends: tuple[float, float]) -> None:
        self._ends = ends

    def range(
        self,
        observer: str,
        *,
        percentile: float | None = None,
        bits: int = 8,
        symmetric: bool = False,
        groups: Sequence[int] | None = None,
    ) -> tuple[float, float]:
        del observer, percentile, bits, symmetric
        chosen = self._ends if groups is None else [self._ends[group] for group in groups]
        return min(low for low, _ in chosen), max(high for _, high in chosen)


def quantization(inputs: Inputs, ranges: Ranges, *, signed: bool = False) -> ActivationQuantization:
    return activation_quantization([(None, inputs)], ranges, (), signed=signed, symmetric=False)


def grouped(inputs: Inputs, ranges: Ranges, *, signed: bool = True) -> ActivationQuantization:
    segments = [(range(1), inputs), (range(1, 2), inputs)]
    return activation_quantization(segments, ranges, (500.5,), signed=signed, symmetric=False)


def least_and_greatest(
    found: ActivationQuantization, bounds: tuple[int, int]
) -> tuple[float, float]:
    low, high = ((bound - found.zero_point) * found.scale for bound in bounds)
    return low, high


def test_an_asymmetric_range_uses_all_levels() -> None:
    found = quantization(Inputs(dtype="uint8", symmetric=False), Ranges((-1.0, 3.0)))

    assert found.bounds is None
    assert least_and_greatest(found, (0, 255)) == pytest.approx((-1.0, 3.0), abs=0.01)


def test_a_symmetric_range_has_its_zero_in_the_middle() -> None:
    found = quantization(Inputs(dtype="int8", symmetric=True), Ranges((-1.0, 3.0)), signed=True)

    assert found == ActivationQuantization("int8", pytest.approx(3.0 / 127), 0)


@pytest.mark.parametrize("signed", [True, False])
def test_four_bits_are_sixteen_levels_of_the_carrier(*, signed: bool) -> None:
    found = quantization(Inputs(dtype="uint4", symmetric=False), Ranges((-1.0, 3.0)), signed=signed)

    assert found.bounds is not None
    low, high = found.bounds
    assert high - low == 15
    assert least_and_greatest(found, found.bounds) == pytest.approx((-1.0, 3.0), abs=0.3)


def test_a_group_with_a_smaller_range_is_divided_by_a_smaller_ratio() -> None:
    found = grouped(Inputs(dtype="int8", timestep_groups=2), Ranges((-4.0, 4.0), (-1.0, 1.0)))

    assert found.groups is not None
    assert found.groups.boundaries == (500.5,)
    assert found.groups.ratios == pytest.approx((1.0, 0.25), rel=0.02)


def test_a_group_of_four_bits_reaches_its_own_range() -> None:
    ranges = Ranges((-4.0, 4.0), (-1.0, 1.0))
    found = grouped(Inputs(dtype="int4", timestep_groups=2), ranges)

    assert found.groups is not None
    for ratio, bounds, end in zip(
        found.groups.ratios, found.groups.bounds, (4.0, 1.0), strict=True
    ):
        low, high = least_and_greatest(found, bounds)
        assert low * ratio <= -end * 0.99
        assert high * ratio == pytest.approx(end, rel=0.2)


def test_a_scale_by_token_comes_from_the_values() -> None:
    wish = Inputs(dtype="int8", granularity="token", mode="dynamic")

    assert quantization(wish, Ranges()).token


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_every_narrow_type_has_so_many_values_in_either_carrier(*, bits: int, signed: bool) -> None:
    found = quantization(
        Inputs(dtype=f"int{bits}", symmetric=False), Ranges((-1.0, 3.0)), signed=signed
    )

    assert found.bounds is not None
    low, high = found.bounds
    assert found.dtype == ("int8" if signed else "uint8")
    assert high - low == 2**bits - 1
