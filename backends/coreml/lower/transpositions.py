"""Transpositions of many axes as steps of few: reshape, transpose, reshape, transpose.

Axes that stay neighbours are one axis, and axes of size one are none, so most transpositions of six to eight
axes are of five or fewer already. What is left is cut into five blocks of neighbours, which are transposed;
of all such steps the one that leaves the fewest axes is taken, until five are left. Blocks can always be found
that bring two axes together, so it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, permutations

__all__ = ["Step", "transposition_steps"]

Step = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape that the elements in order are seen in, and a permutation of its axes."""


def transposition_steps(shape: Sequence[int], perm: Sequence[int], most: int) -> tuple[Step, ...]:
    """Takes a transposition apart.

    Args:
        shape: Of the tensor.
        perm: Axis of the tensor for each axis of the result.
        most: Axes that a step may have, at least 4.

    Returns:
        Steps whose last result has the elements of the transposed tensor, in order; none where transposing
        moves nothing.
    """
    kept = [axis for axis in perm if shape[axis] != 1]
    sizes = [shape[axis] for axis in kept]
    # Each axis is called by its place in the result; the order is that of the tensor.
    order = tuple(kept.index(axis) for axis in sorted(kept))
    steps: list[Step] = []
    while len(order) > 1:
        order, sizes = _merged(order, sizes)
        if len(order) < 2:
            break
        blocks = tuple((name,) for name in order) if len(order) <= most else _cut_best(order, most)
        shuffled = _best_shuffle(blocks)
        steps.append(
            (
                tuple(math.prod(sizes[name] for name in block) for block in blocks),
                tuple(blocks.index(block) for block in shuffled),
            )
        )
        order = _joined(shuffled)
    return tuple(steps)


def _merged(order: tuple[int, ...], sizes: Sequence[int]) -> tuple[tuple[int, ...], list[int]]:
    """Axes that follow one another in tensor and result as one."""
    runs: list[list[int]] = []
    for name in order:
        if runs and runs[-1][-1] + 1 == name:
            runs[-1].append(name)
        else:
            runs.append([name])
    names = sorted(run[0] for run in runs)
    merged = {run[0]: math.prod(sizes[name] for name in run) for run in runs}
    return tuple(names.index(run[0]) for run in runs), [merged[name] for name in names]


def _cut_best(order: tuple[int, ...], most: int) -> tuple[tuple[int, ...], ...]:
    """The cut into blocks whose best shuffle brings most axes together; the first of equals."""
    return max(_cuts(order, most), key=lambda blocks: _together(_joined(_best_shuffle(blocks))))


def _cuts(order: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    for inner in combinations(range(1, len(order)), most - 1):
        bounds = (0, *inner, len(order))
        yield tuple(order[start:end] for start, end in pairwise(bounds))


def _best_shuffle(blocks: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return max(permutations(blocks), key=lambda shuffled: _together(_joined(shuffled)))


def _joined(blocks: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(name for block in blocks for name in block)


def _together(order: tuple[int, ...]) -> int:
    return sum(after == before + 1 for before, after in pairwise(order))
