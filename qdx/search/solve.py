"""The exact choice under the additive model, by the integer programs of HiGHS.

Variables x[p, o] are 1 where part p takes option o. Each part takes one; costs and noises are linear in x. The model is
that of mixed precision as a knapsack with several choices (Chen et al. 2021, Towards Mixed-Precision Quantization of
Neural Networks via Constrained Optimization, equation 12), with noise measured instead of estimated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qdx.exporter.errors import InternalError, Refusal, TargetRefusal, UsageError
from qdx.search.changes import Changes
from qdx.search.problem import Assignment, Problem
from qdx.search.program import minimized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["Objective", "Row", "budget_rows", "keeps", "least", "noise_rows", "solve"]

_SHOWN: Final = 8
"""How many parts that stand in the way an error names."""


@dataclass(frozen=True)
class Objective:
    """What becomes least: weighted noises, or a cost.

    Attributes:
        noises: Weights of the noises.
        cost: The cost, where noise is bounded and the cheapest is wanted; None minimises noise.
    """

    noises: Mapping[str, float]
    cost: str | None = None


@dataclass(frozen=True)
class Row:
    """One bound: the sum over the chosen of some value is at most so much.

    Attributes:
        name: As users write it.
        values: By part and choice, in the order of the problem.
        most: The bound, what nothing changes taken off.
        scale: What the numbers of messages are multiplied by.
        offset: Likewise added.
        changes: What pairs of parts add to the sum; None where there is nothing of the kind.
    """

    name: str
    values: tuple[tuple[float, ...], ...]
    most: float
    scale: float = 1.0
    offset: float = 0.0
    changes: Changes | None = None

    def total(self, places: Sequence[int]) -> float:
        """The sum over chosen places."""
        found = sum(values[place] for values, place in zip(self.values, places, strict=True))
        return found if self.changes is None else found + self.changes.total(places)

    def more(self, places: Sequence[int], changed: Mapping[int, int]) -> float:
        """What the sum grows by where some parts change to other places."""
        found = sum(self.values[part][k] - self.values[part][places[part]] for part, k in changed.items())  # fmt: skip
        return found if self.changes is None else found + self.changes.more(places, changed)

    def told(self, total: float) -> str:
        """A sum as users count it."""
        if self.name == "speedup":
            return f"{self.scale / (total + self.offset):.4g}"
        if self.name.endswith("_db"):
            return f"{-10 * np.log10(max(total, 1e-300)):.4g}"
        return f"{(total + self.offset) * self.scale:.10g}"


def budget_rows(problem: Problem, budgets: Mapping[str, float]) -> tuple[Row, ...]:
    """Returns the bounds of budgets.

    Raises:
        UsageError: The analysis does not know a cost.
    """
    return tuple(_budget_row(problem, name, most) for name, most in budgets.items())


def noise_rows(problem: Problem, bounds_db: Mapping[str, float]) -> tuple[Row, ...]:
    """Returns the bounds of noises, each at most 10^(-dB / 10).

    Raises:
        UsageError: The analysis does not know a noise.
    """
    rows = []
    for name, least_db in bounds_db.items():
        if name not in problem.known_noises:
            raise UsageError(
                f"--goal: the analysis knows no {name} noise", hint="the pipeline has no guidance"
            )
        values = tuple(tuple(c.noise[name] for c in part.choices) for part in problem.parts)
        goal = "sqnr_db" if name == "prediction" else f"{name}_db"
        rows.append(Row(goal, values, 10 ** (-least_db / 10)))
    return tuple(rows)


def solve(problem: Problem, objective: Objective, rows: Sequence[Row] = ()) -> Assignment:
    """Returns the assignment that is best under the additive model and keeps every bound.

    Raises:
        TargetRefusal: Nothing keeps the bounds: names the least that can be met and the parts in the way.
    """
    values = _objective(problem, objective)
    changes = None if objective.cost is None else problem.changes(objective.cost)
    places = _solved(problem, values, rows, changes)
    if places is None:
        raise _infeasible(problem, rows)
    return _options(problem, places)


def keeps(
    problem: Problem, assignment: Assignment, rows: Sequence[Row], *, slack: float = 0.0
) -> bool:
    """Whether an assignment keeps bounds.

    Args:
        problem: Whose parts take options.
        assignment: Of them.
        rows: The bounds.
        slack: What part of a bound a sum may be above it.
    """
    places = problem.places(assignment)
    return all(row.total(places) <= row.most + slack * abs(row.most) for row in rows)


def least(problem: Problem, row: Row, others: Sequence[Row] = ()) -> float | None:
    """Returns the least that the sum of a bound can be while others hold; None where they cannot."""
    places = _solved(problem, row.values, others, row.changes)
    return None if places is None else row.total(places)


def _budget_row(problem: Problem, name: str, most: float) -> Row:
    cost = {"average_bits": "bytes", "speedup": "latency_ms"}.get(name, name)
    if cost not in problem.known_costs:
        raise UsageError(
            f"--budget: the analysis does not know `{cost}` of every option",
            hint="analyze with `--latency auto`, or take a budget of bytes or average_bits"
            if cost == "latency_ms"
            else f"budgets it knows are {', '.join(problem.known_costs)}",
        )
    values = _costs(problem, cost)
    fixed = problem.fixed.get(cost, 0.0)
    if name == "average_bits":
        elements = problem.elements
        if elements == 0:
            raise UsageError("--budget: average_bits of a model whose groups have no weights")
        return Row(name, values, most * elements / 8 - fixed, scale=8 / elements, offset=fixed)
    changes = problem.changes(cost)
    if name == "speedup":
        whole = problem.float_ms
        if whole is None:
            raise UsageError(
                "--budget: the analysis does not know what float takes",
                hint="take a budget of latency_ms",
            )
        return Row(name, values, whole / most - fixed, scale=whole, offset=fixed, changes=changes)
    return Row(name, values, most - fixed, offset=fixed, changes=changes)


def _costs(problem: Problem, cost: str) -> tuple[tuple[float, ...], ...]:
    """Costs of every part's choices; bytes of a group only at its first part."""
    counted: set[int] = set()
    found = []
    for part in problem.parts:
        again = cost == "bytes" and part.group in counted
        counted.add(part.group)
        found.append(tuple(0.0 if again else choice.costs[cost] for choice in part.choices))
    return tuple(found)


def _objective(problem: Problem, objective: Objective) -> tuple[tuple[float, ...], ...]:
    if objective.cost is not None:
        return _costs(problem, objective.cost)
    for name in objective.noises:
        if not all(name in choice.noise for part in problem.parts for choice in part.choices):
            raise UsageError(
                f"the analysis knows no {name} noise of every option",
                hint=f"noises it knows are {', '.join(problem.known_noises)}",
            )
    return tuple(
        tuple(
            sum(share * choice.noise[name] for name, share in objective.noises.items())
            for choice in part.choices
        )
        for part in problem.parts
    )


def _solved(
    problem: Problem,
    values: Sequence[Sequence[float]],
    rows: Sequence[Row],
    changes: Changes | None = None,
) -> tuple[int, ...] | None:
    """Places of the chosen in each part's choices; None where the bounds cannot be kept."""
    bounds = [row.most for row in rows]
    for _ in range(4):
        places = _program(problem, values, rows, bounds, changes)
        if places is None:
            return None
        # The solver keeps bounds to a millionth; budgets are kept exactly.
        over = [k for k, row in enumerate(rows) if row.total(places) > row.most]
        if not over:
            return places
        for k in over:
            bounds[k] -= 2e-6 * abs(rows[k].most)
    raise InternalError("the solver keeps no bound")


def _program(
    problem: Problem,
    values: Sequence[Sequence[float]],
    rows: Sequence[Row],
    bounds: Sequence[float],
    changes: Changes | None,
) -> tuple[int, ...] | None:
    from scipy.optimize import LinearConstraint
    from scipy.sparse import csr_array

    counts = [len(part.choices) for part in problem.parts]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    total = int(starts[-1])
    owner = np.repeat(np.arange(len(counts)), counts)
    every = [one for one in (changes, *(row.changes for row in rows)) if one is not None]
    paired = every[0].rows(starts.tolist()) if every else None  # all are of the same pairs
    between = 0 if paired is None else paired[1]
    width = total + between
    one_each = csr_array((np.ones(total), (owner, np.arange(total))), shape=(len(counts), width))
    constraints = [LinearConstraint(one_each, 1, 1)]
    if paired is not None:
        constraints.append(LinearConstraint(paired[0], -np.inf, 0))
    for row, most in zip(rows, bounds, strict=True):
        flat = _flat(row.values, row.changes, between)
        size = max(abs(most), float(np.abs(flat).max(initial=0.0)) * 1e-6) or 1.0
        constraints.append(LinearConstraint(csr_array(flat[None] / size), -np.inf, most / size))
    if (ties := _ties(problem, starts, width)) is not None:
        constraints.append(LinearConstraint(ties, 0, 0))
    if not total:
        return ()
    objective = _flat(values, changes, between)
    largest = float(np.abs(objective).max())
    # The relaxed optimum gives the scale of the objective.
    relaxed = minimized(objective, constraints, scale=1 / max(largest, 1e-300), whole=False)
    if relaxed is None:
        return None
    near = max(abs(float(objective @ relaxed)), largest * 1e-7, 1e-300)
    found = minimized(objective, constraints, scale=1000 / near, between=between)
    if found is None:
        return None
    return tuple(int(np.argmax(found[a:b])) for a, b in itertools.pairwise(starts))


def _flat(values: Sequence[Sequence[float]], changes: Changes | None, between: int) -> Numbers:
    """Of all variables: choices, and behind them pairs."""
    pairs = np.zeros(between) if changes is None else changes.costs
    return np.concatenate([*(np.asarray(v, float) for v in values), pairs])


def _ties(problem: Problem, starts: NDArray[np.int_], width: int) -> Any:
    """Rows that are zero where parts of one group have the same weights."""
    from scipy.sparse import csr_array

    first: dict[int, int] = {}
    entries: list[tuple[int, int, float]] = []
    number = 0
    for place, part in enumerate(problem.parts):
        other = first.setdefault(part.group, place)
        if other == place:
            continue
        labels = sorted({c.tie for p in (other, place) for c in problem.parts[p].choices})
        for label in labels:
            for p, sign in ((other, 1.0), (place, -1.0)):
                entries += [
                    (number, int(starts[p]) + k, sign)
                    for k, choice in enumerate(problem.parts[p].choices)
                    if choice.tie == label
                ]
            number += 1
    if not number:
        return None
    rows, columns, signs = zip(*entries, strict=True)
    return csr_array((signs, (rows, columns)), shape=(number, width))


def _options(problem: Problem, places: Sequence[int]) -> Assignment:
    return tuple(
        part.choices[place].option for part, place in zip(problem.parts, places, strict=True)
    )


def _infeasible(problem: Problem, rows: Sequence[Row]) -> TargetRefusal:
    """Says of each bound what can be met, and which parts spend what stays."""
    words, refusals = [], []
    for row in rows:
        alone = least(problem, row)
        together = least(problem, row, [other for other in rows if other is not row])
        if alone is None:
            continue
        asked = row.told(row.most)
        verb = "most" if row.name == "speedup" or row.name.endswith("_db") else "least"
        if alone > row.most:
            words.append(
                f"{row.name}={asked} cannot be met: the {verb} that can is {row.told(alone)}"
                + _unchanged(row)
            )
            refusals += _in_the_way(problem, row)
        elif together is None or together > row.most:
            also = "" if together is None else f", {row.told(together)} with the other demands"
            words.append(f"{row.name}={asked} can be met alone ({row.told(alone)}){also}")
    return TargetRefusal(
        "; ".join(words) or "the demands cannot be met together",
        refusals=tuple(refusals),
        hint="ask for less, or allow more options; what stands in the way is named above",
    )


def _unchanged(row: Row) -> str:
    """What no option changes, where it stands in the way too."""
    if row.name not in {"latency_ms", "speedup"} or not row.offset:
        return ""
    return f" ({row.offset:.4g} ms are of operations that no option changes)"


def _in_the_way(problem: Problem, row: Row) -> list[Refusal]:
    """The parts that spend most even where they spend least."""
    spent = [(min(values), place) for place, values in enumerate(row.values)]
    total = sum(value for value, _ in spent) or 1.0
    worst = sorted(spent, key=lambda pair: (-pair[0], pair[1]))[:_SHOWN]
    found = []
    for value, place in worst:
        part = problem.parts[place]
        cheapest = part.choices[row.values[place].index(value)]
        why = f"; {part.why_few}" if part.why_few else ""
        words = (
            f"takes {value / total:.1%} of the least, with {problem.labels[cheapest.option]}{why}"
        )
        found.append(Refusal(part.name, words))
    return found
