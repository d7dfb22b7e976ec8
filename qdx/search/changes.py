"""What it costs where parts that stand beside each other read different types: a cost of pairs, not of parts. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Changes"]

Places = Mapping[int, int]
"""Of parts, the place of the choice that each changes to."""


@dataclass(frozen=True)
class Changes:
    """Costs of pairs of parts.

    Attributes:
        pairs: Two parts by place, and what it costs where their choices are of different kinds.
        kinds: Of each choice by part, in the order of the problem: choices of one kind cost nothing beside each other.
    """

    pairs: tuple[tuple[int, int, float], ...]
    kinds: tuple[tuple[str, ...], ...] = field(repr=False)

    def total(self, chosen: Sequence[int]) -> float:
        """What all pairs cost.

        Args:
            chosen: Of each part, the place of its choice.
        """
        return sum(
            cost
            for one, other, cost in self.pairs
            if self.kinds[one][chosen[one]] != self.kinds[other][chosen[other]]
        )

    def more(self, chosen: Sequence[int], changed: Places) -> float:
        """What pairs cost more, or less, where some parts change their choice."""
        touched = {pair: None for part in changed for pair in self._of_part.get(part, ())}
        found = 0.0
        for one, other, cost in touched:
            before = self.kinds[one][chosen[one]] != self.kinds[other][chosen[other]]
            mine, theirs = changed.get(one, chosen[one]), changed.get(other, chosen[other])
            found += cost * (int(self.kinds[one][mine] != self.kinds[other][theirs]) - int(before))
        return found

    def kept(self, places: Sequence[Sequence[int]]) -> Changes:
        """The same of a problem in which parts have some of their choices left, by place."""
        kinds = zip(self.kinds, places, strict=True)
        return replace(self, kinds=tuple(tuple(own[k] for k in left) for own, left in kinds))

    def rows(self, starts: Sequence[int]) -> tuple[Any, int] | None:
        """Rows of an integer program, each at most 0, in which a variable for each pair is 1 where its kinds differ.

        y >= (part is of the kind) - (other part is of the kind), for every kind of the first: where they differ, one of
        these is 1. As y costs, it is no more than it must be. Variables of pairs stand behind those of choices.

        Args:
            starts: The first variable of each part, and the end of all.

        Returns:
            The rows, and how many variables they add; None without pairs.
        """
        from scipy.sparse import csr_array

        if not self.pairs:
            return None
        entries: list[tuple[int, int, float]] = []
        row = 0
        for number, (one, other, _) in enumerate(self.pairs):
            for kind in dict.fromkeys(self.kinds[one]):
                for part, sign in ((one, 1.0), (other, -1.0)):
                    entries += [
                        (row, starts[part] + k, sign)
                        for k, own in enumerate(self.kinds[part])
                        if own == kind
                    ]
                entries.append((row, starts[-1] + number, -1.0))
                row += 1
        lines, columns, signs = zip(*entries, strict=True)
        shape = (row, starts[-1] + len(self.pairs))
        return csr_array((signs, (lines, columns)), shape=shape), len(self.pairs)

    @property
    def costs(self) -> NDArray[np.float64]:
        """Of the variables of pairs."""
        return np.array([cost for _, _, cost in self.pairs])

    def more_by_single(self, chosen: Sequence[int], starts: Sequence[int]) -> NDArray[np.float64]:
        """What pairs cost more where one part changes to each choice: a number for every choice of every part."""
        found = np.zeros(starts[-1])
        for one, other, cost in self.pairs:
            mine, theirs = self.kinds[one][chosen[one]], self.kinds[other][chosen[other]]
            now = float(mine != theirs)
            found[starts[one] : starts[one + 1]] += cost * (self._differs(one, theirs) - now)
            found[starts[other] : starts[other + 1]] += cost * (self._differs(other, mine) - now)
        return found

    def together(
        self, chosen: Sequence[int], starts: Sequence[int], moves: NDArray[np.int_]
    ) -> NDArray[np.float64]:
        """What two moves cost more together than each alone: a number for each pair of moves.

        Args:
            chosen: Of each part, the place of its choice.
            starts: The first choice of each part, and the end of all.
            moves: Choices that are changed to, rising.
        """
        found = np.zeros((len(moves), len(moves)))
        ends = np.searchsorted(moves, np.asarray(starts))
        for one, other, cost in self.pairs:
            mine, theirs = self.kinds[one][chosen[one]], self.kinds[other][chosen[other]]
            rows, columns = slice(ends[one], ends[one + 1]), slice(ends[other], ends[other + 1])
            first = [self.kinds[one][int(move) - starts[one]] for move in moves[rows]]
            second = [self.kinds[other][int(move) - starts[other]] for move in moves[columns]]
            if not first or not second:
                continue
            both = np.array([[float(a != b) for b in second] for a in first])
            alone = np.array([float(a != theirs) for a in first])[:, None]
            alone = alone + np.array([float(mine != b) for b in second])[None]
            more = cost * (both - alone + float(mine != theirs))
            found[rows, columns] += more
            found[columns, rows] += more.T
        return found

    def _differs(self, part: int, kind: str) -> NDArray[np.float64]:
        return np.array([float(own != kind) for own in self.kinds[part]])

    @cached_property
    def _of_part(self) -> Mapping[int, Sequence[tuple[int, int, float]]]:
        found: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for pair in self.pairs:
            found[pair[0]].append(pair)
            found[pair[1]].append(pair)
        return found
