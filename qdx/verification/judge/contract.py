"""The contract that judges: the bundle's own, or that of whoever verifies, from a plan or a file of gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.plan.differences import differences
from qdx.exporter.plan.resolve.settle import settled_gates
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.plan.schema.load_gates import load_gates

if TYPE_CHECKING:
    from qdx.exporter.plan.resolve.feasibility import PlanTarget
    from qdx.exporter.plan.schema.gates import AskedGates, Gates
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["OWN", "Contract", "Judge", "read_judge"]

OWN: Final = "bundle"
"""The source of a contract that the bundle itself carries."""

_NAMED: Final = 5
_LEVELS: Final = ("lowering", "conditioning", "audit", "coverage")
"""Of gates that a contract may leave out altogether; the others have defaults."""


@dataclass(frozen=True)
class Contract:
    """Bounds, and whose they are.

    Attributes:
        gates: With every bound said.
        source: `bundle`, `plan ci.json` or `gates gates.json`.
        findings: What a reader must know of it, a sentence each.
    """

    gates: Gates
    source: str = OWN
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """Who judges instead of the bundle.

    Attributes:
        source: As in `Contract`.
        gates: What is asked.
        plan: The plan that asks it; None for a file of gates alone.
    """

    source: str
    gates: AskedGates
    plan: Plan | None = None

    def contract(self, own: Plan, target: PlanTarget) -> Contract:
        """What is asked of a bundle, settled as an export settles it.

        Args:
            own: The bundle's plan. Bounds that a file of gates leaves unsaid are those for its types.
            target: The bundle's target, which chooses bounds that are left unsaid.
        """
        plan = own.model_copy(update={"gates": self.gates}) if self.plan is None else self.plan
        gates, _ = settled_gates(plan, target)
        return Contract(gates, self.source, tuple(self._findings(own)))

    def _findings(self, own: Plan) -> Iterator[str]:
        differing = [] if self.plan is None else differences(own, self.plan)
        if differing:
            shown = [quoted(name) for name in differing[:_NAMED]]
            beyond = len(differing) - len(shown)
            more = [f"{beyond} more"] if beyond else []
            yield (
                f"the bundle was exported with another plan than {quoted(self.source)}, which judges it: they differ in "
                + ", ".join([*shown, *more])
            )
        levels = ((name, getattr(own.gates, name), getattr(self.gates, name)) for name in _LEVELS)
        unjudged = [name for name, owned, asked in levels if owned is not None and asked is None]
        if unjudged:
            yield (
                f"the bundle's own plan has gates of {', '.join(unjudged)} too, of which {quoted(self.source)} has none"
            )


def read_judge(plan: str | Path | None, gates: str | Path | None) -> Judge | None:
    """Reads who judges; None for the bundle itself.

    Args:
        plan: A preset's name or a plan file, whose gates judge.
        gates: A file with the gates of a plan alone.

    Raises:
        InvalidPlan: The file is not what it should be; with line and column.
        StorageError: Reading failed.
        UsageError: Both are given.
    """
    if plan is not None and gates is not None:
        raise UsageError(
            "--plan and --gates: both are given, expected one contract",
            hint="a plan has gates of its own; leave --gates out, or --plan",
        )
    if plan is not None:
        read = load_plan(plan)
        return Judge(f"plan {Path(plan).name}", read.gates, read)
    if gates is not None:
        return Judge(f"gates {Path(gates).name}", load_gates(gates))
    return None
