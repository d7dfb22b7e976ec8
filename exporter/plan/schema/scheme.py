"""How numbers are stored: the schemes of weights and of an operation's inputs, as a plan asks and as they are carried out.

What a plan asks may leave values unsaid, which are None: the target chooses them (`choices`). A scheme that is
carried out says all of them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from qdx.exporter.dtypes import FLOAT_DTYPES, INPUT_DTYPES
from qdx.exporter.formats.registry import weight_dtypes
from qdx.exporter.formats.rounding import NEAREST, ROUNDINGS
from qdx.exporter.plan.schema.model import OneOf, PlanModel

__all__ = [
    "FLOAT",
    "LOW_RANK_OPERATIONS",
    "ROTATED_OPERATIONS",
    "AskedFloat",
    "AskedInputs",
    "AskedWeights",
    "Block",
    "FloatDtype",
    "Granularity",
    "Group",
    "Inputs",
    "InputsDtype",
    "Learning",
    "LowRank",
    "Rotate",
    "RotationBlock",
    "TableDtype",
    "Weights",
    "WeightsDtype",
]

FloatDtype = Literal["float32", "float16", "bfloat16"]
AskedFloat = Literal[FloatDtype, "float"]
WeightsDtype = Annotated[str, OneOf(weight_dtypes)]
AskedDtype = Annotated[str, OneOf(lambda: (*weight_dtypes(), FLOAT))]
RoundingName = Annotated[str, OneOf(lambda: ROUNDINGS)]
TableDtype = Literal["float32", "float16", "int8"]
InputsDtype = Annotated[str, OneOf(lambda: INPUT_DTYPES)]

Granularity = Literal["tensor", "channel", "block", "grouped_channel"]
Block = Literal[16, 32, 64, 128, 256]
Group = Literal[1, 2, 4, 8, 16, 32, 64, 128]

FLOAT: Final = "float"
"""What a plan calls the float type that the target chooses."""


class Learning(PlanModel):
    """How a rounding learns that learns from calls; what is left out is the method's own choice.

    Attributes:
        calls: Calls of a graph that it learns from, spread over the schedule and the samples of the calibration.
        act_order: `gptq`: columns in falling order of their inputs' power, not in the order in which they lie.
        damping: `gptq`: share of the mean power of inputs that is added to each, so that the system is well posed.
        unit: `adaround`: what is learned together: the weights of a `layer`, or those of a `block`, such as a residual
            block, by the block's output.
        steps: `adaround`: steps of the optimizer for each of these.
    """

    calls: Annotated[int, Field(ge=1, le=4096)] = 64
    act_order: bool = True
    damping: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.01
    unit: Literal["layer", "block"] = "block"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 200


LOW_RANK_OPERATIONS: Final = ("linear", "conv1d", "conv2d", "conv3d")
"""Operations beside which a low-rank branch can stand."""


class LowRank(PlanModel):
    """A branch beside a quantized weight: its leading singular part as two small float matrices.

    Attributes:
        rank: Columns of the one and rows of the other.
        dtype: Float type in which they are stored; None takes that of the component's float weights.
    """

    rank: Annotated[int, Field(ge=1, le=1024)]
    dtype: FloatDtype | None = None


RotationBlock = Literal[4, 8, 16, 32, 64, 128, 256, 512, 1024]

ROTATED_OPERATIONS: Final = LOW_RANK_OPERATIONS
"""Operations whose input channels can be rotated."""
_BLOCK_UNSAID: Final = 128
"""The largest block where a plan says none: work grows with it, and outliers shrink with its root."""


class Rotate(PlanModel):
    """A rotation of what an operation reads, taken back by its weight: outliers are spread over blocks of channels.

    Attributes:
        hadamard: The matrix: `plain` is Sylvester's, which gathers what all channels of a block have in common in the first
            one; `signed` turns the signs of some channels before, the same in every export.
        block: Consecutive channels that are rotated together; None takes the largest power of two, up to 128, that divides
            the channels.
    """

    hadamard: Literal["signed", "plain"] = "signed"
    block: RotationBlock | None = None

    def with_block(self, channels: int) -> Rotate:
        """It with the block that it has for some channels; without one where no block divides them."""
        largest = min(channels & -channels, _BLOCK_UNSAID)
        if self.block is not None or largest < get_args(RotationBlock)[0]:
            return self
        return Rotate.model_validate({"hadamard": self.hadamard, "block": largest})

    def matrix_name(self, op: str) -> str:
        """Name of the parameter that holds the matrix, which all operations of a kind in a graph share."""
        kind = "" if op == "linear" else f"_{op}"
        return f"rotation_{self.hadamard}_{self.block}{kind}"


class AskedWeights(PlanModel):
    """How a plan asks weights to be stored.

    What is left out has the defaults below; None leaves it to the target. With a float dtype the other keys
    mean nothing and are refused.

    Attributes:
        dtype: The stored type. Float types hold the values themselves, rounded to nearest, ties to
            even, and `float` is the one that the target chooses; integers and float8 hold multiples of a
            scale, and no target stores integers of two, three, five or six bits; palettes hold indices of so many bits into a table of values. `nvfp4` is 4-bit floats in blocks of 16 with scales in 8-bit floats and
            one of the tensor in float32, `mxfp8` 8-bit floats in blocks of 32 with powers of two.
        granularity: What shares a scale: the whole `tensor`, an output `channel`, or a `block` of
            consecutive elements along the dimension that the operation reduces. What shares the table of
            a palette: the whole `tensor`, or a `grouped_channel`, that is `group` output channels.
        block: Elements of a block, for granularity `block`.
        group: Channels that share a table, for granularity `grouped_channel`.
        lut_dtype: Type of a palette's values: float, or `int8` with a scale for each table. None takes the
            type in which the component stores its float weights.
        symmetric: Zero is stored as zero (the middle for unsigned types); otherwise each scale has a
            zero point.
        observer: How the range is chosen: `minmax` covers every value, `mse` is the range of least squared
            error, in `nvfp4` of each block.
        range_factor: What that range is multiplied by. Of few bits, the range of least error of the weight is often not
            the one of least error of the output.
        rounding: How values become stored ones: `nearest`, of integers ties to even. `gptq` rounds column by column and
            lets those to come make up for each error, `adaround` learns for each value whether it goes up or down; both
            learn from calls of the model, in any format.
        learning: How these two learn; None for their own choice.
        reduce_range: Seven bits instead of eight, for processors without VNNI, whose sums of pairs
            saturate.
        low_rank: A float branch that takes the leading singular part of the weight, as smoothing leaves it; only the rest
            is quantized. None for no branch.
        rotate: A rotation of the operation's input channels and of the weight's, behind smoothing and before a branch is
            taken out. None for none.
    """

    dtype: AskedDtype
    granularity: Granularity | None = None
    block: Block | None = None
    group: Group | None = None
    lut_dtype: TableDtype | None = None
    symmetric: bool | None = None
    observer: Literal["minmax", "mse"] = "minmax"
    range_factor: Annotated[float, Field(ge=0.25, le=4, allow_inf_nan=False)] = 1.0
    rounding: RoundingName = NEAREST
    learning: Learning | None = None
    reduce_range: bool = False
    low_rank: LowRank | None = None
    rotate: Rotate | None = None

    @property
    def quantized(self) -> bool:
        """Whether the stored values stand for others: multiples of a scale, or indices into a table."""
        return self.dtype != FLOAT and self.dtype not in FLOAT_DTYPES

    @property
    def by_blocks(self) -> bool:
        """Whether weights are learned block by block."""
        return self.rounding == "adaround" and self.learned_how.unit == "block"

    @property
    def learned_how(self) -> Learning:
        """How a rounding learns that learns from calls."""
        return self.learning or Learning()


class Weights(AskedWeights):
    """How weights are stored: `AskedWeights` with everything said.

    Of `block`, `group` and `lut_dtype`, None says that there are no blocks, groups or tables.
    """

    dtype: WeightsDtype
    granularity: Granularity = "channel"
    symmetric: bool = True


class AskedInputs(PlanModel):
    """How a plan asks the inputs of an operation to be quantized; None leaves it to the target.

    Attributes:
        dtype: `float32` leaves them alone. Types of two to six bits are carried by eight: the
            values are clipped to the range of the narrow type.
        granularity: What shares a scale: the whole `tensor`, or in mode `dynamic` each `token` (all
            channels of one position) or, in `nvfp4` and `mxfp8`, a `block` of channels.
        mode: `static` scales come from calibration, `dynamic` ones from the values at run time; the scale
            of the whole tensor that `nvfp4` has beside those of blocks comes from calibration.
        symmetric: Zero is stored as zero (the middle for unsigned types).
        observer: How a static range is chosen from the calibrated values: all of them (`minmax`), a
            `percentile`, or the range of least squared error (`mse`).
        percentile: Share of the values inside the range; given exactly with observer `percentile`.
        timestep_groups: Number of equal parts of the schedule, each with scales of its own, and below
            eight bits with zero points of its own.
    """

    dtype: InputsDtype
    granularity: Literal["tensor", "token", "block"] = "tensor"
    mode: Literal["static", "dynamic"] = "static"
    symmetric: bool | None = None
    observer: Literal["minmax", "percentile", "mse"] = "minmax"
    percentile: Annotated[float, Field(ge=0.9, lt=1, allow_inf_nan=False)] | None = None
    timestep_groups: Annotated[int, Field(ge=1, le=100)] = 1

    @property
    def quantized(self) -> bool:
        """Whether the inputs are quantized at all."""
        return self.dtype != "float32"

    @property
    def calibrated(self) -> bool:
        """Whether a scale comes from calibration."""
        return self.quantized and (self.mode == "static" or self.dtype == "nvfp4")


class Inputs(AskedInputs):
    """How the inputs of an operation are quantized: `AskedInputs` with everything said."""

    symmetric: bool = True
