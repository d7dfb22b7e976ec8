"""What a plan leaves unsaid is settled: by what its types imply, or else by the target; each value keeps who chose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from qdx.exporter.dtypes import bits, number_type
from qdx.exporter.formats.registry import format_of
from qdx.exporter.plan.schema.choices import Row, first_saying
from qdx.exporter.plan.schema.gates import Gates
from qdx.exporter.plan.schema.scheme import (
    FLOAT,
    ROTATED_OPERATIONS,
    AskedInputs,
    AskedWeights,
    Inputs,
    LowRank,
    Weights,
)

if TYPE_CHECKING:
    from qdx.exporter.plan.resolve.feasibility import PlanTarget
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.plan.schema.rule import Rule

__all__ = [
    "Chosen",
    "Operation",
    "Settled",
    "When",
    "settled_gates",
    "settled_inputs",
    "settled_mixed_precision",
    "settled_weights",
]

When = Literal["always", "faster", "never"]
_FLOAT8: Final = "float8_e4m3fn"
_CARRIER_BITS: Final = 8
_Scheme = TypeVar("_Scheme", Weights, Inputs)


@dataclass(frozen=True)
class Chosen:
    """A value that plans may leave unsaid.

    Attributes:
        name: What it is, such as `inputs.symmetric`.
        value: As in a plan's JSON.
        by: Who chose it: `plan` or a rule of it, a dtype that implies it, or a target.
        why: The reason in words; empty where a plan gives none.
    """

    name: str
    value: str | bool | int | float
    by: str
    why: str


@dataclass(frozen=True)
class Settled(Generic[_Scheme]):
    """A scheme with everything said.

    Attributes:
        scheme: The scheme.
        when: Whether it is carried out always, where that is faster, or never.
        chosen: Those of its values that a plan may leave unsaid.
        target: Name of the target that chose where the plan did not.
    """

    scheme: _Scheme
    when: When = "always"
    chosen: tuple[Chosen, ...] = ()
    target: str = ""

    def left_to_target(self, name: str) -> bool:
        """Whether the target chose a value."""
        return any(one.name == name and one.by == self.target for one in self.chosen)


@dataclass(frozen=True)
class Operation:
    """What choices may depend on.

    Attributes:
        op: The operation.
        storage: Type of the component's float weights, which `float` means.
        inputs: Type that is asked for its inputs; `float32` where they stay float.
        channels: That each of its outputs reads; 0 without a weight.
    """

    op: str
    storage: str
    inputs: str
    channels: int = 0


def settled_weights(
    asked: AskedWeights,
    rule: Rule,
    by: str,
    operation: Operation,
    target: PlanTarget,
) -> Settled[Weights]:
    """Settles the scheme of a weight.

    Args:
        asked: What the plan asks.
        rule: The rule that asks it.
        by: Its name.
        operation: What the weight belongs to.
        target: Chooses what is unsaid.
    """
    if not asked.quantized:
        dtype = operation.storage if asked.dtype == FLOAT else asked.dtype
        return Settled(Weights.model_validate({"dtype": dtype}))
    about = operation.op, asked.dtype, operation.inputs
    rows = [row for row in target.choices.weights if row.fits(*about)]
    values = _Values("weights", _implied_by_weights(asked), target.name, rows)
    values.say(asked.model_dump(exclude_none=True), by, rule.why)
    values.settle("granularity")
    if values.said["granularity"] == "block":
        values.settle("block")
    if values.said["granularity"] == "grouped_channel":
        values.settle("group")
    values.settle("symmetric")
    scheme = Weights.model_validate(values.said)
    if scheme.low_rank is not None and scheme.low_rank.dtype is None:
        low_rank = LowRank.model_validate(
            {"rank": scheme.low_rank.rank, "dtype": operation.storage}
        )
        scheme = scheme.model_copy(update={"low_rank": low_rank})
    if scheme.rotate is not None and operation.op in ROTATED_OPERATIONS:
        rotate = scheme.rotate.with_block(operation.channels)
        scheme = scheme.model_copy(update={"rotate": rotate})
    return Settled(scheme, rule.when or "always", values.chosen, target.name)


def settled_inputs(
    asked: AskedInputs,
    rule: Rule,
    by: str,
    operation: Operation,
    target: PlanTarget,
    *,
    by_timestep: bool,
) -> Settled[Inputs]:
    """Settles the scheme of an operation's inputs.

    Args:
        asked: What the plan asks.
        rule: The rule that asks it.
        by: Its name.
        operation: Whose inputs they are.
        target: Chooses what is unsaid.
        by_timestep: Whether any scheme of these inputs depends on the timestep: one graph has one kind of quantizer.
    """
    if not asked.quantized:
        return Settled(Inputs.model_validate({"dtype": asked.dtype}))
    rows = [row for row in target.choices.inputs if row.fits(operation.op, asked.dtype)]
    values = _Values(
        "inputs", _implied_by_inputs(asked, by_timestep=by_timestep), target.name, rows
    )
    values.say(
        asked.model_dump(exclude_none=True) | rule.model_dump(include={"when"}), by, rule.why
    )
    values.settle("symmetric")
    values.settle("when")
    when = values.said.pop("when")
    if when == "always" and rule.when is None:  # nothing was chosen: it is done as asked
        values.chosen = values.chosen[:-1]
    return Settled(Inputs.model_validate(values.said), when, values.chosen, target.name)


def settled_gates(plan: Plan, target: PlanTarget) -> tuple[Gates, tuple[Chosen, ...]]:
    """Returns the gates of a plan with every bound said, and the bounds that it may leave unsaid."""
    asked = _asked_dtypes(plan, target.choices.float_dtype.value)
    rows = [row for row in target.choices.gates if row.fits(*asked)]
    values = _Values("gates", {}, target.name, rows)
    given = plan.gates.model_dump(exclude_none=True)
    for gate in ("component", "lowering"):
        if gate in given:
            name = f"{gate}_sqnr_db_min"
            bound = given[gate].get("sqnr_db_min")
            values.say({} if bound is None else {name: bound}, "plan", None)
            values.settle(name)
            given[gate] = {**given[gate], "sqnr_db_min": values.said[name]}
    return Gates.model_validate(given), values.chosen


def _asked_dtypes(plan: Plan, own: str) -> tuple[frozenset[str], frozenset[str]]:
    """The types of weights that a plan asks for, the quantized ones if any, and of quantized inputs, or float32.

    `own` is the float type of the target, which plans call `float`.
    """
    if plan.nncf is not None:  # its settings say what rules say elsewhere
        multiplied = plan.nncf.mode != "weights"
        stored = "int8" if plan.nncf.mode == "ptq" else plan.nncf.weights.partition("_")[0]
        return frozenset({stored}), frozenset({"int8" if multiplied else "float32"})
    weights = [rule.asked_weights for rule in plan.rules if rule.asked_weights is not None]
    inputs = [rule.inputs for rule in plan.rules if rule.inputs is not None]
    narrow = frozenset(part.dtype for part in weights if part.quantized)
    return (
        narrow or frozenset(own if part.dtype == FLOAT else part.dtype for part in weights),
        frozenset(part.dtype for part in inputs if part.quantized) or frozenset({"float32"}),
    )


def settled_mixed_precision(plan: Plan, target: PlanTarget) -> Chosen:
    """Returns whether only products are computed in sixteen bits, and who chose it."""
    name, said = "options.mixed_precision", plan.options.mixed_precision
    if said is not None:
        return Chosen(name, said, "plan", "")
    choice = target.choices.mixed_precision
    return Chosen(name, choice.value, target.name, choice.why)


class _Values:
    """Values of one scheme, and who said them.

    Args:
        part: Of the plan, for names.
        implied: Values that leave no choice, each with what implies it.
        target: The target's name.
        rows: What it chooses.
    """

    def __init__(
        self, part: str, implied: Mapping[str, tuple[Any, str]], target: str, rows: Sequence[Row]
    ) -> None:
        self._part = part
        self._implied = implied
        self._target = target
        self._rows = rows
        self._authors: dict[str, tuple[str, str]] = {}
        self.said: dict[str, Any] = {}
        self.chosen: tuple[Chosen, ...] = ()

    def say(self, values: Mapping[str, Any], by: str, why: str | None) -> None:
        """Takes what a plan says."""
        for name, value in values.items():
            if value is not None:
                self.said[name] = value
                self._authors[name] = by, why or ""

    def settle(self, name: str) -> None:
        """Gives a value that is not said: the implied one, or the target's where it has one."""
        if name not in self.said:
            if name in self._implied:
                self.said[name], implied_by = self._implied[name]
                self._authors[name] = implied_by, "nothing else is possible"
            elif (found := first_saying(self._rows, name)) is not None:
                self.said[name], why = found
                self._authors[name] = self._target, why
            else:
                return
        by, why = self._authors[name]
        self.chosen += (Chosen(f"{self._part}.{name}", self.said[name], by, why),)


def _implied_by_weights(asked: AskedWeights) -> dict[str, tuple[Any, str]]:
    implied: dict[str, tuple[Any, str]] = {}
    if asked.block is not None:
        implied["granularity"] = "block", "`block`"
    if asked.group is not None:
        implied["granularity"] = "grouped_channel", "`group`"
    for key, value in format_of(asked.dtype).implied(asked.dtype).items():
        implied[key] = value, asked.dtype
    if asked.reduce_range:
        implied["symmetric"] = True, "`reduce_range`"
    return implied


def _implied_by_inputs(asked: AskedInputs, *, by_timestep: bool) -> dict[str, tuple[Any, str]]:
    if asked.dtype == _FLOAT8 or number_type(asked.dtype).block:
        return {"symmetric": (True, asked.dtype)}
    if asked.mode == "dynamic":
        return {"symmetric": (True, "`dynamic`")}
    if by_timestep and bits(asked.dtype) == _CARRIER_BITS:
        return {"symmetric": (True, "scales by timestep")}
    return {}
