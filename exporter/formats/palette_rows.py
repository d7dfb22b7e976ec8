"""Rows of a weight as points for clustering, and their elements as indices into tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from qdx.exporter.errors import InvalidModel
from qdx.exporter.formats.clusters import Points, centres

__all__ = ["nearest_entries", "row_centres"]

_SORTED_ELEMENTS: Final = 1 << 16
"""Rows up to this length are sorted; longer ones are counted in bins."""
_CHUNK_ELEMENTS: Final = 1 << 20
_BINS: Final = 1 << 16
"""One for each pattern of float16: steps of a 2048th of a value's power of two."""
_LARGEST_EXPONENT: Final = 126
"""Of a power of two in float32."""


def row_centres(rows: torch.Tensor, number: int) -> torch.Tensor:
    """The centres of each row's elements, float64 [rows, number]; see `clusters.centres`.

    Long rows are clustered by their float16 values, which tables of palettes cannot tell apart; the centres are
    means of the exact elements all the same.

    Args:
        rows: float32 [rows, elements], not empty.
        number: Centres of each row, at least two.

    Raises:
        InvalidModel: An element is NaN or infinite.
    """
    if not all(bool(torch.isfinite(chunk).all()) for chunk in _chunks(rows)):
        raise InvalidModel(
            "holds NaN or infinity", hint="the weights are damaged; fetch the model again"
        )
    found = torch.empty(len(rows), number, dtype=torch.float64)
    if rows.shape[1] > _SORTED_ELEMENTS:
        for index, row in enumerate(rows):
            found[index] = centres(_binned(row.contiguous().numpy(), number), number)[0]
        return found
    height = max(1, _CHUNK_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), height):
        found[start : start + height] = centres(_sorted(rows[start : start + height]), number)
    return found


def nearest_entries(rows: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """The index of the nearest entry for each element, of two at the same distance the lower one's.

    Args:
        rows: float32 [rows, elements].
        tables: float32 [rows, entries], rising.

    Returns:
        uint8 [rows, elements].
    """
    found = torch.empty(rows.shape, dtype=torch.uint8)
    limits = _limits(tables)
    if rows.shape[1] > _SORTED_ELEMENTS:
        for index, row in enumerate(rows):
            values = row.contiguous().numpy()
            found[index] = torch.from_numpy(_looked_up(values, limits[index].numpy()))
        return found
    height = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        found[part] = torch.searchsorted(limits[part], rows[part].contiguous())
    return found


def _sorted(rows: torch.Tensor) -> Points:
    values = torch.from_numpy(np.sort(rows.numpy(), axis=1)).double()
    return Points.of(values, torch.ones_like(values), values, values * values)


def _binned(row: NDArray[np.float32], number: int) -> Points:
    """One point for each float16 value that occurs: the mean of its elements."""
    exponent = _exponent(row)
    counts = np.zeros(_BINS)
    sums = np.zeros(_BINS)
    for chunk, pattern in _patterns(row, exponent):
        counts += np.bincount(pattern, minlength=_BINS)
        sums += np.bincount(pattern, weights=chunk, minlength=_BINS)
    order = _order()
    order = order[counts[order] > 0]
    if len(order) <= number:  # few values: these and no means of them
        values, elements = np.unique(row, return_counts=True)
        exact = values.astype(np.float64)
        return _row_of(exact, elements.astype(np.float64), exact * elements)
    return _row_of(sums[order] / counts[order], counts[order], sums[order])


def _row_of(
    values: NDArray[np.float64], counts: NDArray[np.float64], sums: NDArray[np.float64]
) -> Points:
    columns = (
        torch.from_numpy(each).unsqueeze(0) for each in (values, counts, sums, sums * values)
    )
    return Points.of(*columns)


def _looked_up(row: NDArray[np.float32], limits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The number of limits below each element.

    A bin of elements spans one limit at most, unless entries lie closer than float16 tells apart: then
    the limit at or above the bin's lower edge decides with one comparison.
    """
    exponent = _exponent(row)
    order = _order()
    middle = np.ldexp(order.view(np.uint16).view(np.float16).astype(np.float64), -exponent)
    edges = (middle[1:] + middle[:-1]) / 2
    below = np.searchsorted(limits, np.concatenate([[-np.inf], edges]), side="left")
    above = np.searchsorted(limits, np.concatenate([edges, [np.inf]]), side="left")
    if (above - below).max() > 1:
        return np.searchsorted(limits, row).astype(np.uint8)
    first = np.zeros(_BINS, np.uint8)
    limit = np.full(_BINS, np.inf, np.float32)
    first[order] = below
    limit[order] = np.append(limits, np.float32(np.inf))[below]
    found = np.empty(len(row), np.uint8)
    start = 0
    for chunk, pattern in _patterns(row, exponent):
        part = found[start : start + len(chunk)]
        np.add(first.take(pattern), chunk > limit.take(pattern), out=part, casting="unsafe")
        start += len(chunk)
    return found


def _limits(tables: torch.Tensor) -> torch.Tensor:
    """The greatest float32 that is not above the middle of two neighbours, [rows, entries - 1]."""
    middle = (tables[:, 1:].double() + tables[:, :-1].double()) / 2
    rounded = middle.to(torch.float32)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.double() > middle, below, rounded)


def _exponent(row: NDArray[np.float32]) -> int:
    """The power of two that brings the largest magnitude below 2^15, where float16 has its finest steps."""
    peak = max(float(row.max()), -float(row.min()))
    return min(15 - int(np.frexp(peak)[1]), _LARGEST_EXPONENT)


def _patterns(
    row: NDArray[np.float32], exponent: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint16]]]:
    """Runs of a row with the pattern of each element in float16, scaled by a power of two."""
    factor = float(np.ldexp(1.0, exponent))
    for start in range(0, len(row), _CHUNK_ELEMENTS):
        chunk = row[start : start + _CHUNK_ELEMENTS]
        halves = torch.from_numpy(chunk).mul(factor).half()
        yield chunk, halves.view(torch.int16).numpy().view(np.uint16)


def _order() -> NDArray[np.uint16]:
    """The patterns of finite float16 values in the order of these; the two zeros follow each other."""
    positive = np.arange(0x7C00, dtype=np.uint16)
    return np.concatenate([(positive | 0x8000)[::-1], positive])


def _chunks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    height = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
    for start in range(0, len(rows), height):
        yield rows[start : start + height]
