"""What a target chooses for all that plans leave unsaid, as data with the reasons.

Of each table the rows are read in order, and the first that fits and speaks of a value decides it. A column that is
left out holds for everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, Strict, model_validator

from qdx.exporter.plan.schema.model import Decibels, PlanModel, Words
from qdx.exporter.plan.schema.scheme import (
    Block,
    FloatDtype,
    Granularity,
    Group,
    InputsDtype,
    WeightsDtype,
)

__all__ = [
    "Choices",
    "FloatChoice",
    "GatesChoice",
    "InputsChoice",
    "Row",
    "Switch",
    "WeightsChoice",
    "first_saying",
]

# TOML has lists only; they are taken as tuples.
_Loose = Strict(strict=False)
_Operations = Annotated[tuple[str, ...], _Loose, Field(min_length=1)]
_Weights = Annotated[tuple[WeightsDtype, ...], _Loose, Field(min_length=1)]
_Inputs = Annotated[tuple[InputsDtype, ...], _Loose, Field(min_length=1)]


class FloatChoice(PlanModel):
    """The float type of what is not quantized.

    Attributes:
        value: The type.
        why: The reason in words.
    """

    value: FloatDtype
    why: Words


class Switch(PlanModel):
    """Whether something is done.

    Attributes:
        value: Whether it is.
        why: The reason in words.
    """

    value: bool
    why: Words


class WeightsChoice(PlanModel):
    """Values of schemes of weights.

    Attributes:
        op: Operations that it is about.
        dtype: Types of the weight that it is about.
        inputs: Types of the operation's inputs that it is about; `float32` where they are not quantized.
        granularity: What shares a scale or a table.
        block: Elements of a block, where a scale is shared by one.
        group: Channels that share a table, where groups do.
        symmetric: No zero point.
        why: The reason in words.
    """

    op: _Operations | None = None
    dtype: _Weights | None = None
    inputs: _Inputs | None = None
    granularity: Granularity | None = None
    block: Block | None = None
    group: Group | None = None
    symmetric: bool | None = None
    why: Words

    def fits(self, op: str, dtype: str, inputs: str) -> bool:
        """Whether it is about an operation whose weight and inputs have these types."""
        return _holds(self.op, op) and _holds(self.dtype, dtype) and _holds(self.inputs, inputs)


class InputsChoice(PlanModel):
    """Values of schemes of inputs.

    Attributes:
        op: Operations that it is about.
        dtype: Types of the inputs that it is about.
        symmetric: No zero point.
        when: `always` quantizes them; `faster` where that is faster; `never` leaves them float.
        why: The reason in words.
    """

    op: _Operations | None = None
    dtype: _Inputs | None = None
    symmetric: bool | None = None
    when: Literal["always", "faster", "never"] | None = None
    why: Words

    def fits(self, op: str, dtype: str) -> bool:
        """Whether it is about an operation whose inputs have a type."""
        return _holds(self.op, op) and _holds(self.dtype, dtype)


class GatesChoice(PlanModel):
    """Bounds of gates that a plan has without saying how much.

    Attributes:
        weights: Types of weights that it is about: the quantized ones that a plan asks for, or without any the floats.
        inputs: Types of inputs that it is about; `float32` for plans that quantize none.
        component_sqnr_db_min: See `ComponentGates`.
        lowering_sqnr_db_min: See `LoweringGates`.
        why: The reason in words.
    """

    weights: _Weights | None = None
    inputs: _Inputs | None = None
    component_sqnr_db_min: Decibels | None = None
    lowering_sqnr_db_min: Decibels | None = None
    why: Words

    def fits(self, weights: frozenset[str], inputs: frozenset[str]) -> bool:
        """Whether it is about a plan that asks for weights and inputs of some types."""
        return (self.weights is None or bool(weights & set(self.weights))) and (
            self.inputs is None or bool(inputs & set(self.inputs))
        )


Row = WeightsChoice | InputsChoice | GatesChoice
_COMPLETE: Final = {
    "weights": ("granularity", "symmetric"),
    "inputs": ("symmetric", "when"),
    "gates": ("component_sqnr_db_min", "lowering_sqnr_db_min"),
}
"""What the rows of a table that hold for everything must say together."""
_COLUMNS: Final = frozenset({"op", "dtype", "weights", "inputs"})


class Choices(PlanModel):
    """All that a target chooses.

    Attributes:
        float_dtype: The float type of what is not quantized.
        mixed_precision: See `Options`.
        weights: Values of schemes of weights.
        inputs: Values of schemes of inputs.
        gates: Bounds of gates.
    """

    float_dtype: FloatChoice
    mixed_precision: Switch
    weights: Annotated[tuple[WeightsChoice, ...], _Loose]
    inputs: Annotated[tuple[InputsChoice, ...], _Loose]
    gates: Annotated[tuple[GatesChoice, ...], _Loose]

    @model_validator(mode="after")
    def _complete(self) -> Choices:
        for table, names in _COMPLETE.items():
            rows = [
                row
                for row in getattr(self, table)
                if all(getattr(row, column, None) is None for column in _COLUMNS)
            ]
            for name in names:
                if all(getattr(row, name) is None for row in rows):
                    raise ValueError(f"`{table}`: no row that holds for everything says `{name}`")
        return self


def first_saying(rows: Sequence[Row], name: str) -> tuple[Any, str] | None:
    """Returns the value that the first of some rows says of something, and why; None where none does."""
    for row in rows:
        value = getattr(row, name, None)
        if value is not None:
            return value, row.why
    return None


def _holds(column: Sequence[str] | None, value: str) -> bool:
    return column is None or value in column
